"""What can go wrong between an environment and the stack that plays it."""

from __future__ import annotations

from himac_envs.errors import HiMACError


class EpisodeOverError(HiMACError, RuntimeError):
    """A decision was taken where no episode is going on."""

    def __init__(self, begun: bool) -> None:
        what = "the episode is over" if begun else "no episode has begun"
        super().__init__(f"{what}: reset() begins one")


class NotTextError(HiMACError, ValueError):
    """An environment that cannot be played as text."""

    def __init__(self, env_id: str) -> None:
        super().__init__(
            f"{env_id} is not played in text: its observations hold none, or its actions are no "
            "text. `himac list` shows the ids; the flat and the hierarchical ones are text"
        )


class NoTaskError(HiMACError, ValueError):
    """A trainer's row names no task, so that the members of its group would play different ones."""

    def __init__(self, builder: str) -> None:
        super().__init__(
            "the row names no task_id: the episodes of a group would play different tasks. "
            f"{builder}(env_id) makes rows that have one"
        )


class MissingStackError(HiMACError, ImportError):
    """The stack that an adapter is for is not installed."""

    def __init__(
        self, stack: str, install: str, error: ImportError, room: str = "himac_envs.adapters"
    ) -> None:
        super().__init__(
            f"{room}.{stack} needs a package that cannot be imported ({error}). "
            f"Install it: {install}",
            name=error.name,
            path=error.path,
        )
