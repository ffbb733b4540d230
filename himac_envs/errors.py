"""The suite's own errors: each message says what to do next."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

#: Optional packages by the module that is imported: the package, and the extra that brings it.
OPTIONAL: dict[str, tuple[str, str]] = {
    "torch": ("torch", "agents"),
    "transformers": ("transformers", "agents"),
    "safetensors": ("safetensors", "agents"),
    "tensorboard": ("tensorboard", "agents"),
    "peft": ("peft", "hf"),
    "accelerate": ("accelerate", "hf"),
    "gguf": ("gguf", "gguf"),
    "jinja2": ("jinja2", "report"),
    "matplotlib": ("matplotlib", "report"),
    "httpx": ("httpx", "api"),
    "numba": ("numba", "sokoban"),
    "PIL": ("pillow", "sokoban"),
    "imageio": ("imageio", "sokoban"),
    "imageio_ffmpeg": ("imageio-ffmpeg", "sokoban"),
    "rapidfuzz": ("rapidfuzz", "webshop"),
    "flask": ("flask", "webshop"),
    "waitress": ("waitress", "webshop"),
    "selenium": ("selenium", "browser"),
    "pettingzoo": ("pettingzoo", "multiagent"),
    "trl": ("trl", "bench"),
    "wandb": ("wandb", "wandb"),
    "trackio": ("trackio", "trackio"),
    "alfworld": ("alfworld", "reference"),
}


class HiMACError(Exception):
    """Base of the suite's own errors; the message always says what to do next.

    They go from process to process as they are, whatever their constructors take: Python alone
    would make them anew from the message, which most of them do not take.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        state = dict(self.__dict__)
        if isinstance(self, ImportError):  # holds these beside its dictionary
            state |= {"msg": self.msg, "name": self.name, "path": self.path}
        return _again, (type(self), self.args), state


def _again(kind: type[HiMACError], args: tuple[object, ...]) -> HiMACError:
    """Return an error with a message that was written before."""
    error = kind.__new__(kind, *args)
    error.args = args
    return error


class UnknownTaskError(HiMACError, ValueError):
    """A ``task_id`` that this environment's data does not hold."""

    def __init__(self, task_id: str, known: Iterable[str], where: str) -> None:
        near = difflib.get_close_matches(str(task_id), list(known)[:20_000], n=3, cutoff=0.4)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        super().__init__(
            f"there is no task {task_id!r} in {where}.{hint} "
            "`env.unwrapped.task_ids(split)` lists the ids."
        )


class UnknownSplitError(HiMACError, ValueError):
    """A split that does not exist, or that has no tasks in this data."""

    def __init__(self, split: str, counts: Mapping[str, int], where: str) -> None:
        table = ", ".join(f"{name!r}: {n} tasks" for name, n in counts.items()) or "none"
        what = "has no tasks" if split in counts else "is not a split"
        super().__init__(f"{split!r} {what} of {where}. Splits found there: {table}.")


class MissingDependencyError(HiMACError, ImportError):
    """An optional package is needed for what was asked."""

    def __init__(self, package: str, what: str, extra: str) -> None:
        super().__init__(f"{what} needs {package}: pip install 'himac[{extra}]'")


def explained(error: ImportError, what: str = "this") -> ImportError:
    """Return the error of a missing optional package, which names its extra and the command.

    Args:
        error: What an import raised.
        what: What needs the package, in words.

    Returns:
        A `MissingDependencyError`; any other error as it is.
    """
    if isinstance(error, MissingDependencyError):
        return error
    name = (error.name or "").partition(".")[0]
    if error.name is None:  # raised by somebody's hand: it says no more than its text
        name = next((word for word in re.findall(r"\w+", str(error)) if word in OPTIONAL), "")
    elif not isinstance(error, ModuleNotFoundError):
        return error  # what is there and lacks a name is another version, or broken: not missing
    package, extra = OPTIONAL.get(name, ("", ""))
    if not package:
        return error
    return MissingDependencyError(package, what, extra)
