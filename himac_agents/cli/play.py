"""``himac play ENV``: a person (or the expert) plays in the terminal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import tyro
from rich.console import Console
from rich.markup import escape

from himac_envs import HierarchicalEnv, OracleExecutor, OraclePlanner, TaskEnv
from himac_envs.blueprint import SUB_DONE
from himac_envs.registry import find_id

Ask = Callable[[str], str]

_HELP = (
    "commands: ? lists what is admissible, /goal shows the goal, /quit ends. "
    f"In a hierarchy {SUB_DONE} (or /done) ends the sub-goal."
)


def run(
    env: Annotated[str, tyro.conf.Positional] = "HiMAC-ALFWorld-v0",
    split: str = "train",
    data: str | None = None,
    task_id: str | None = None,
    seed: int | None = None,
    max_steps: int | None = None,
    expert: bool = False,
    record: Path | None = None,
) -> int:
    """Play an environment in the terminal: first the blueprint, then the steps.

    Args:
        env: A benchmark's name (alfworld, webshop, sokoban), or a registered id (see himac list).
        split: Which tasks.
        data: A folder of data, or "generated".
        task_id: Play this task.
        seed: Seed of the task's choice.
        max_steps: Length of the episode.
        expert: Watch the expert instead.
        record: Write a film of it, .gif or .mp4 (environments with pictures).
    """
    env = find_id(env)
    kwargs: dict[str, Any] = {"split": split}
    if data is not None:
        kwargs["data"] = data
    if max_steps is not None:
        kwargs["max_steps"] = max_steps
    if record is not None:
        kwargs["render_mode"] = "rgb_array"
    made = gym.make(env, **kwargs)
    inner = made.unwrapped
    if not isinstance(inner, HierarchicalEnv | TaskEnv):
        raise ValueError(f"{env} is no text environment: himac play shows those of the suite")
    options = None if task_id is None else {"task_id": task_id}
    if record is not None:
        from himac_envs.sokoban.record import Recorder

        made = Recorder(made, record)
    try:
        return Session(inner, Console(highlight=False), input, made).play(seed, options, expert)
    finally:
        made.close()


class Session:
    """One episode at the terminal.

    Args:
        env: What is played.
        console: Where it is shown.
        ask: Reads one line from the player; an EOFError ends the episode.
        stage: Where its actions go (None: to itself): the same environment before a camera.
    """

    def __init__(
        self,
        env: HierarchicalEnv | TaskEnv,
        console: Console,
        ask: Ask,
        stage: gym.Env[Any, Any] | None = None,
    ) -> None:
        self.env = env
        self.stage: gym.Env[Any, Any] = env if stage is None else stage
        self.console = console
        self.ask = ask

    def play(self, seed: int | None, options: dict[str, Any] | None, expert: bool) -> int:
        """Play to the end; the status is 0 also for a lost or abandoned episode."""
        observation, info = self.stage.reset(seed=seed, options=options)
        self._say(f"[dim]task {escape(info['task_id'])} ({escape(info['data'])})[/]")
        self._say(f"[dim]{escape(_HELP)}[/]\n")
        choose = self._expert() if expert else self._person
        total, terminated, truncated = 0.0, False, False
        while not (terminated or truncated):
            self._show(observation)
            try:
                action = choose(observation, info)
            except (EOFError, KeyboardInterrupt, StopIteration):
                self._say("\n[bold]stopped[/]")
                return 0
            if expert:
                self._say(f"[bold cyan]{escape(action)}[/]")
            observation, reward, terminated, truncated, info = self.stage.step(action)
            total += float(reward)
            if "option" in info:
                self._say(f"[magenta]sub-goal ended: {escape(str(info['option']))}[/]")
        self._show(observation)
        verdict = "[bold green]won[/]" if info["won"] else "[bold red]not won[/]"
        self._say(f"{verdict}: {info['step']} steps, return {total:g}, score {info['score']:g}")
        return 0

    def _say(self, markup: str) -> None:
        self.console.print(markup, soft_wrap=True)

    def _show(self, observation: dict[str, Any]) -> None:
        # WebShop's pages come in one line, parted as agents read them.
        self._say(escape(str(observation["text"]).replace(" [SEP] ", "\n")))
        if observation.get("phase") == 1:
            number, subgoal = observation["subgoal_index"] + 1, observation["subgoal"]
            self._say(f"[magenta]\\[{number}. {escape(subgoal)}][/]")

    def _person(self, observation: dict[str, Any], info: dict[str, Any]) -> str:
        if observation.get("phase") == 0:
            self._say("[bold]Blueprint[/], one sub-goal a line, an empty line ends it:")
            lines: list[str] = []
            while line := self.ask(f"{len(lines) + 1}. ").strip():
                lines.append(f"{len(lines) + 1}. {line}")
            return "\n".join(lines)
        while True:
            line = self.ask("> ").strip()
            if line == "?":
                self._say(escape(", ".join(info["admissible"])))
            elif line == "/goal":
                self._say(escape(info["goal"]))
            elif line == "/quit":
                raise EOFError
            else:
                return SUB_DONE if line == "/done" else line

    def _expert(self) -> Callable[[dict[str, Any], dict[str, Any]], str]:
        env = self.env
        if isinstance(env, TaskEnv):
            commands = env.oracle()
            return lambda observation, info: next(commands)
        planner, executor = OraclePlanner(env), OracleExecutor(env)
        return lambda observation, info: (
            planner(observation, info) if observation["phase"] == 0 else executor(observation, info)
        )
