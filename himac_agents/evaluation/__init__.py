"""What agents can do: success with intervals, protocols, agents by name."""
