"""``himac play ENV``: a person (or the expert) plays in the terminal."""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import tyro
from rich.console import Console
from rich.markup import escape

from himac_agents.cli.environment import AS_NAMED, EnvOptions, find_text_env
from himac_envs import HierarchicalEnv, OracleExecutor, OraclePlanner, registry
from himac_envs.blueprint import SUB_DONE
from himac_envs.contract import ContractError, expert_of
from himac_envs.wording import wording

Ask = Callable[[str], str]

_HELP = (
    "commands: ? lists what is admissible, /goal shows the goal, /quit ends. "
    f"In a hierarchy {SUB_DONE} (or /done) ends the sub-goal."
)
#: What a terminal sends for a key without a character, and for the arrows among them.
_KEY = re.compile(r"\x1b[\[O][0-9;]*[A-Za-z~]")
_NUMBER = re.compile(r"^\d+[.)]\s+")
_ARROWS = {"A": "up", "B": "down", "C": "right", "D": "left"}


def run(
    env: Annotated[str, tyro.conf.Positional] = "HiMAC-ALFWorld-v0",
    split: str = "train",
    task_id: str | None = None,
    seed: int | None = None,
    expert: bool = False,
    record: Path | None = None,
    environment: Annotated[EnvOptions, tyro.conf.arg(name="")] = AS_NAMED,
) -> int:
    """Play an environment in the terminal: first the blueprint, then the steps.

    Args:
        env: An id (himac list shows them), a benchmark's name (alfworld, webshop, sokoban) or
            module:Id-v0.
        split: The split to draw a task from.
        task_id: Play this task.
        seed: Seed that draws the task.
        expert: Watch the expert play.
        record: Film the episode, as .gif or .mp4 (environments with pictures).
        environment: The environment's form and arguments.
    """
    kwargs: dict[str, Any] = {"split": split, **environment.arguments()}
    found = find_text_env(env, kwargs, environment.flat)
    if record is not None:
        kwargs["render_mode"] = "rgb_array"
    made = registry.make(found.id, **kwargs)
    if expert:
        expert_of(made, "oracle", found.id)
    options = None if task_id is None else {"task_id": task_id}
    if record is not None:
        from himac_envs.sokoban.record import Recorder

        made = Recorder(made, record)
    with contextlib.suppress(ImportError):  # Windows has none
        importlib.import_module("readline")  # from here on `input` edits lines, arrow keys included
    try:
        return Session(made, Console(highlight=False), input).play(seed, options, expert)
    finally:
        made.close()


class Session:
    """One episode at the terminal.

    Args:
        env: What is played, with all its wrappers: a text environment, flat or hierarchical.
        console: Where it is shown.
        ask: Reads one line from the player; an EOFError ends the episode.
    """

    def __init__(self, env: gym.Env[Any, Any], console: Console, ask: Ask) -> None:
        self.env = env
        self.console = console
        self.ask = ask
        self._moves: list[str] = []  # of several arrow keys on one line

    def play(self, seed: int | None, options: dict[str, Any] | None, expert: bool) -> int:
        """Play to the end; the status is 0 also for a lost or abandoned episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        of = f" ({escape(str(info['data']))})" if "data" in info else ""
        self._say(f"[dim]task {escape(info['task_id'])}{of}[/]")
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
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if "option" in info:
                self._say(f"[magenta]{escape(_ended(info['option']))}[/]")
            if info.get("blueprint_done") and not (terminated or truncated):
                self._say("[magenta]no sub-goal is left: continue with commands[/]")
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
            while line := self._line(f"{len(lines) + 1}. ", info):
                if line in ("/done", SUB_DONE):
                    break
                # The number stands before the line already.
                lines.append(f"{len(lines) + 1}. {_NUMBER.sub('', line)}")
            return "\n".join(lines)
        line = self._moves.pop(0) if self._moves else self._line("> ", info)
        return SUB_DONE if line == "/done" else line

    def _line(self, prompt: str, info: dict[str, Any]) -> str:
        """One line of the player's that is no command to this program, which are carried out."""
        while True:
            typed = self.ask(prompt)
            line = _KEY.sub("", typed).strip()
            if not line and (keys := _KEY.findall(typed)):
                moves = [_ARROWS.get(key[-1], "") for key in keys]
                if all(move in info["admissible"] for move in moves):
                    self._moves = moves[1:]
                    return moves[0]
                self._say("arrow keys mean nothing here")
            elif line == "?":
                offered = ", ".join(info["admissible"])
                self._say(escape(offered or f"{self._forms()} An empty line ends the blueprint."))
            elif line == "/goal":
                self._say(escape(info["goal"]))
            elif line == "/quit":
                raise EOFError
            elif line.startswith("/") and line != "/done":
                self._say(f"there is no command {escape(line)}. {escape(_HELP)}")
            else:
                return line

    def _forms(self) -> str:
        """How sub-goals are written here."""
        spec = self.env.spec
        benchmark = registry.benchmark_of(spec.id) if spec is not None else ""
        return wording(benchmark).subgoals

    def _expert(self) -> Callable[[dict[str, Any], dict[str, Any]], str]:
        inner: Any = self.env.unwrapped
        if isinstance(inner, HierarchicalEnv):
            planner, executor = OraclePlanner(inner), OracleExecutor(inner)
            return lambda observation, info: (
                planner(observation, info)
                if observation["phase"] == 0
                else executor(observation, info)
            )
        if "phase" in getattr(self.env.observation_space, "spaces", {}):
            raise ContractError(
                f"{type(inner).__name__} is hierarchical but not a himac_envs.HierarchicalEnv, so "
                "that it has no expert here"
            )
        commands = inner.oracle()
        return lambda observation, info: next(commands)


def _ended(option: Mapping[str, Any]) -> str:
    """An ended sub-goal in words."""
    achieved = {True: ", achieved", False: ", not achieved"}.get(option["achieved"], "")
    steps = f"{option['steps']} step" + ("" if option["steps"] == 1 else "s")
    return f"sub-goal {option['index'] + 1} ended after {steps} ({option['reason']}){achieved}"
