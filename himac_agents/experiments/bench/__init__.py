"""Measurements of the agent layer: ``himac bench``."""
