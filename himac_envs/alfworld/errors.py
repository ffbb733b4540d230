"""Errors that ALFWorld games raise; every message names the file and what to do."""

from __future__ import annotations

from himac_envs.errors import HiMACError


class GameFileError(HiMACError, ValueError):
    """A game file cannot be played: corrupt, incomplete or of an unknown form."""


class UnknownRuleError(GameFileError):
    """A game file holds a grammar or domain rule that this engine was not proven on."""


class UnsolvableGameError(GameFileError):
    """A game file is marked unsolvable, or its goal can never hold."""
