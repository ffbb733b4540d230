"""Playing many episodes at a time, and what comes out of it."""
