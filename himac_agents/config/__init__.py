"""Every setting of a run, declared once: what it is, what it may be, and what it changes."""

from himac_agents.config.sections import Baseline
from himac_agents.config.setting import Setting, check_seeds, check_shares, settings_of
from himac_agents.config.tree import INCIDENTAL, LEARNING_FIELDS, TrainConfig

__all__ = [
    "INCIDENTAL",
    "LEARNING_FIELDS",
    "Baseline",
    "Setting",
    "TrainConfig",
    "check_seeds",
    "check_shares",
    "settings_of",
]
