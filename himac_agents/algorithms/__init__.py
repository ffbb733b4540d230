"""Methods: who plays what, who gets which credit, and how weights move."""
