"""Steps per second through each stack, compared with plain Gymnasium: a table with a row for each.

``python -m himac_envs.adapters.bench [STACK ...]`` prints the rows of the stacks that are named, or
of all whose packages can be imported here. Each has an environment of its own, so a whole table
takes several: ``.venv-adapters/gem/bin/python -m himac_envs.adapters.bench gem``.

An expert's answers to one task of each flat environment are replayed, episode after episode, so
that every stack plays the same steps. Seconds are the process's own (CPU time), so that other
programs on the machine change little.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeAlias

from himac_envs.adapters.session import Session
from himac_envs.registry import make

#: Plays one episode of a task with these answers, from its beginning.
Episode: TypeAlias = Callable[[str, Sequence[str]], None]
#: Makes the stack's own environment of an id and returns how it plays.
Player: TypeAlias = Callable[[str], Episode]

BENCHMARKS = ("ALFWorld", "WebShop", "Sokoban")


@dataclass(frozen=True)
class Speed:
    """What was measured: steps, and the seconds of this process that they took."""

    stack: str
    env_id: str
    steps: int
    seconds: float

    @property
    def rate(self) -> float:
        """Steps a second."""
        return self.steps / self.seconds


def _gymnasium(env_id: str) -> Episode:
    env = make(env_id, data="generated")

    def play(task_id: str, answers: Sequence[str]) -> None:
        env.reset(options={"task_id": task_id})
        for answer in answers:
            env.step(answer)

    return play


def _session(env_id: str) -> Episode:
    session = Session(env_id, data="generated")

    def play(task_id: str, answers: Sequence[str]) -> None:
        session.reset(task_id)
        for answer in answers:
            session.step(answer)

    return play


def _trl(env_id: str) -> Episode:
    env = importlib.import_module("himac_envs.adapters.trl").environment(env_id, data="generated")()

    def play(task_id: str, answers: Sequence[str]) -> None:
        env.reset(task_id=task_id)
        for answer in answers:
            env.act(answer)
        env.get_reward()

    return play


def _gem(env_id: str) -> Episode:
    importlib.import_module("himac_envs.adapters.gem")
    env = importlib.import_module("gem").make(env_id, data="generated")

    def play(task_id: str, answers: Sequence[str]) -> None:
        env.reset(task_id=task_id)
        for answer in answers:
            env.step(answer)

    return play


def _skyrl(env_id: str) -> Episode:
    importlib.import_module("himac_envs.adapters.skyrl")
    gym = importlib.import_module("skyrl_gym")

    def play(task_id: str, answers: Sequence[str]) -> None:
        row = {"env_id": env_id, "task_id": task_id, "env_kwargs": {"data": "generated"}}
        env = gym.make("himac", env_config={}, extras=row)
        env.init([])
        for answer in answers:
            env.step(answer)
        env.close()

    return play


def _verl_agent(env_id: str) -> Episode:
    manager = importlib.import_module("himac_envs.adapters.verl_agent").EnvironmentManager
    envs = manager(env_id, groups=1, data="generated")

    def play(task_id: str, answers: Sequence[str]) -> None:
        envs.reset([{"task_id": task_id}])
        for answer in answers:
            envs.step([f"<think></think><action>{answer}</action>"])

    return play


def _openenv(env_id: str) -> Episode:
    module = importlib.import_module("himac_envs.adapters.openenv")
    # Server and client in one process, on the loopback: a whole round trip a step.
    stack = ExitStack()
    url = stack.enter_context(module.serving(env_id, data="generated"))
    env = stack.enter_context(module.HiMACClient(url).sync())

    def play(task_id: str, answers: Sequence[str]) -> None:
        env.reset(task_id=task_id)
        for answer in answers:
            env.step(answer)

    weakref.finalize(play, stack.close)
    return play


#: The stacks whose cost is measured. verl's is its tokenizer's, so that it is left out.
PLAYERS: dict[str, Player] = {
    "gymnasium": _gymnasium,
    "session": _session,
    "trl": _trl,
    "gem": _gem,
    "skyrl": _skyrl,
    "verl_agent": _verl_agent,
    "openenv": _openenv,
}


def measure(stack: str, env_id: str, seconds: float = 1.0) -> Speed:
    """Replay an expert's episode of the first task through a stack, for so long.

    Args:
        stack: A name of `PLAYERS`.
        env_id: A flat id.
        seconds: The least time that is measured.

    Raises:
        MissingStackError: The stack is not installed.
        KeyError: It is not measured.
    """
    with Session(env_id, data="generated") as session:
        task_id = session.task_ids("train")[0]
        session.reset(task_id)
        answers = []
        while not session.done:
            answers.append(session.expert())
            session.step(answers[-1])
    play = PLAYERS[stack](env_id)
    play(task_id, answers)  # what is loaded once is not measured
    steps, start = 0, time.process_time()
    while (passed := time.process_time() - start) < seconds:
        play(task_id, answers)
        steps += len(answers)
    return Speed(stack, env_id, steps, passed)


def table(stacks: Sequence[str], seconds: float = 1.0) -> str:
    """Return a Markdown table: steps a second, and the share of bare Gymnasium's speed."""
    rows = [f"| stack | {' | '.join(BENCHMARKS)} |", f"|---|{'---:|' * len(BENCHMARKS)}"]
    ids = [f"HiMAC-{name}-Flat-v0" for name in BENCHMARKS]
    bare = [measure("gymnasium", env_id, seconds).rate for env_id in ids]
    for stack in stacks:
        found = [measure(stack, env_id, seconds).rate for env_id in ids]
        shown = [f"{rate:,.0f} ({rate / most:.0%})" for rate, most in zip(found, bare, strict=True)]
        rows.append(f"| {stack} | {' | '.join(shown)} |")
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table; see the module's text."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("stacks", nargs="*", choices=[*PLAYERS, []], help="all that are installed")
    parser.add_argument("--seconds", type=float, default=1.0, help="measured for each figure")
    told = parser.parse_args(arguments)
    print(table(told.stacks or list(filter(_installed, PLAYERS)), told.seconds))


def _installed(stack: str) -> bool:
    try:
        PLAYERS[stack]("HiMAC-Sokoban-Flat-v0")
    except ImportError as error:
        print(f"{stack} is left out: {error}", file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    main()
