"""Studies of methods, and measurements of speed."""
