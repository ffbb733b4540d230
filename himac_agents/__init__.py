"""The agent layer: planners, executors and HiMAC training for the himac_envs environments."""
