"""ALFWorld's text games: the original's strings and rules, played by plain Python."""
