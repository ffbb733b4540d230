"""Few words, for small models trained from scratch."""

from himac_agents.prompts.compact.style import CompactPrompts

__all__ = ["CompactPrompts"]
