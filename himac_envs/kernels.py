"""Inner loops, written once for two readers: numba compiles them, plain Python runs them.

No kernel is imported before it is needed. With numba (the ``sokoban`` extra) it is compiled on
first use and cached on disk; without, the same function runs as it stands, some hundred times
slower, with the same result.

Kernels that call each other live in one file, however long: numba's cache on disk is renewed when
the file of a kernel changes, and does not notice a change in another file that it calls into.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["B1", "COMPILED", "F64", "I16", "I32", "I64", "U8", "U32", "U64", "kernel"]

F = TypeVar("F", bound=Callable[..., Any])

B1: TypeAlias = NDArray[np.bool_]
F64: TypeAlias = NDArray[np.float64]
I16: TypeAlias = NDArray[np.int16]
I32: TypeAlias = NDArray[np.int32]
I64: TypeAlias = NDArray[np.int64]
U8: TypeAlias = NDArray[np.uint8]
U32: TypeAlias = NDArray[np.uint32]
U64: TypeAlias = NDArray[np.uint64]

_log = logging.getLogger(__name__)

try:
    from numba import config as _config
    from numba import njit as _njit
    from numba.core import event as _event
except ImportError:
    COMPILED = False
    """Whether the kernels are machine code."""
else:
    COMPILED = not _config.DISABLE_JIT


if COMPILED:

    class _Announcer(_event.Listener):  # type: ignore[misc]
        """Tells, once a process, that kernels are being compiled.

        numba calls it whenever a function is compiled, and not where its cache on disk has it.
        """

        told = False

        def on_start(self, event: Any) -> None:
            dispatcher = event.data.get("dispatcher")
            module = getattr(getattr(dispatcher, "py_func", None), "__module__", "")
            if self.told or not module.startswith("himac_envs."):
                return
            self.told = True
            kept = dispatcher.stats.cache_path
            _log.warning(
                "compiling the inner loops of %s, which takes up to half a minute: %s",
                ".".join(module.split(".")[:2]),
                f"once, then they are kept in {kept}"
                if kept
                else "in every process, as numba finds no folder for its cache "
                "(set NUMBA_CACHE_DIR to one that can be written to)",
            )

        def on_end(self, event: Any) -> None:
            pass

    _event.register("numba:compile", _Announcer())


def kernel(function: F) -> F:
    """Compile with numba where it is installed, else return the function unchanged."""
    if not COMPILED:
        return function
    try:
        return _njit(cache=True, nogil=True)(function)  # type: ignore[no-any-return]
    except RuntimeError:
        # numba finds no folder that it may write its cache to (a read-only installation and a
        # read-only home): compile in memory, once a process.
        return _njit(nogil=True)(function)  # type: ignore[no-any-return]
