"""Hierarchical Gymnasium environments for ALFWorld, WebShop and Sokoban."""

from himac_envs._version import __version__

__all__ = ["__version__"]
