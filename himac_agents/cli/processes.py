"""One command in several processes of this machine, started by torch's own launcher."""

from __future__ import annotations

import logging
import os
import sys
import uuid
from collections.abc import Sequence

_OPTION = "--processes"


def asked(args: Sequence[str]) -> tuple[int, list[str]]:
    """How many processes a command line asks for, and its other arguments.

    Raises:
        ValueError: That is no number of processes.
    """
    left, found = [], "1"
    words = iter(args)
    for word in words:
        name, equals, value = word.partition("=")
        if name != _OPTION:
            left.append(word)
        else:
            found = value if equals else next(words, "")
    if not found.isdigit() or int(found) < 1:
        raise ValueError(f"{_OPTION} {found}: must be a whole number, 1 or more")
    return int(found), left


def start(count: int, args: Sequence[str]) -> int:
    """Runs ``himac ARGS`` in processes that find each other, and waits for them.

    Each prints its own errors; where one fails, the launcher ends the others.

    Returns:
        The exit status: 0 where all of them ended well, 130 after Ctrl-C.

    Raises:
        ValueError: This process is one of several already.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(f"{_OPTION}: a launcher has started several processes already")
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # Each process says itself what is wrong with it.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    # How many threads torch takes is a setting; what is set here holds until it is read.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "himac_agents", *args)
    except ChildFailedError as error:
        # One that the launcher ended has a signal's number, below 0.
        codes = [failure.exitcode for failure in error.failures.values()]
        return max(codes) if max(codes) > 0 else 1
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0
