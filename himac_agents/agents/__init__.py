"""Who plays: planner, executor, and the experts that demonstrate."""
