"""One episode of any text environment, as plain strings: what every adapter plays through.

Stacks differ in how they call an environment; what they exchange with it is a text each way, a
reward and a flag. `Session` has that, whatever the environment: flat or hierarchical, one of the
suite's or somebody's own. An adapter translates names and nothing else::

    session = Session("HiMAC-ALFWorld-v0")
    text = session.reset(task_id=session.task_ids("train")[0])
    while not session.done:
        text = session.step(model(text))
    print(session.episode_return, session.won)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from types import TracebackType
from typing import Any, Self

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from numpy.typing import NDArray

from himac_envs.adapters.errors import EpisodeOverError, NotTextError
from himac_envs.blueprint import SUB_DONE, Blueprint, clean
from himac_envs.hierarchy import HierarchicalEnv, OracleExecutor
from himac_envs.reading import read_blueprint, read_command
from himac_envs.registry import find_id, make
from himac_envs.task import PLAN_HINT, Info, Observation, as_text

#: What an answer is, when it is not understood: each environment calls it invalid.
NOTHING = ""


class Session:
    """An environment that is played with texts, one episode after the other.

    An answer is read as phase and environment want it: in phase plan as a blueprint
    (`read_blueprint`), else as a command or ``<sub_done>`` (`read_command`: thoughts, tags and
    quotes are taken off). Both readers are total: what is not understood is an invalid command, or
    a blueprint of one sub-goal, the task's goal, as the environment has it. An unknown task raises,
    as in the environment.

    Stacks that offer tools call `act`, `write_blueprint` and `sub_done` instead of `step`. They may
    be called in any order: a command before a blueprint plays on the goal as the only sub-goal, and
    a second blueprint is an invalid command, which costs a step. So an episode has no more than
    `max_decisions` decisions, whatever is answered.

    A session belongs to one thread at a time. Sessions share nothing that changes, so any number
    may play at once.

    Args:
        env_id: A registered id, or another name of `himac_envs.registry.find_id`.
        verbatim: Answers go to the environment as they are: for agents that write commands and
            nothing else.
        list_admissible: Texts end with the commands that are possible now.
        plan_hint: What a text says in phase plan, where a blueprint is to be written.
        **kwargs: For the environment: ``split``, ``data``, ``max_steps``, ``reward``,
            ``max_subgoals`` and so on.

    Attributes:
        env_id: The environment's id.
        env: The environment itself.
        hierarchical: Whether a blueprint comes first.
        text: What was last shown.
        observation: The last observation.
        info: The last info; see `himac_envs.contract.INFO`.
        reward: Of the last call that answered; of both decisions where a call took two (`act`).
        episode_return: The sum of this episode's rewards.
        decisions: Answers given in this episode; ``info["step"]`` counts the task's steps.
        terminated: Whether the task has ended the episode.
        truncated: Whether the step limit has.

    Raises:
        UnknownEnvError: There is no such environment; near names are in the message.
        NotTextError: It is not played in text (the pixel id).
    """

    def __init__(
        self,
        env_id: str,
        *,
        verbatim: bool = False,
        list_admissible: bool = False,
        plan_hint: str = PLAN_HINT,
        **kwargs: Any,
    ) -> None:
        self.env_id = find_id(env_id)
        self.env = make(self.env_id, **kwargs)
        seen = self.env.observation_space
        if not (
            isinstance(seen, spaces.Dict)
            and "text" in seen.spaces
            and isinstance(self.env.action_space, spaces.Text)
        ):
            self.env.close()
            raise NotTextError(self.env_id)
        self.hierarchical = "phase" in seen.spaces
        self.verbatim = verbatim
        self.list_admissible = list_admissible
        self.plan_hint = plan_hint
        self._kwargs = kwargs
        self._executor: OracleExecutor | None = None
        self._advice: tuple[int, str] | None = None
        self._begun = False
        self.text = ""
        self.observation: Observation = {}
        self.info: Info = {}
        self.reward = self.episode_return = 0.0
        self.decisions = 0
        self.terminated = self.truncated = False

    # ---- playing -------------------------------------------------------------------------------
    def reset(self, task_id: str | int | None = None, seed: int | None = None) -> str:
        """Begin an episode and return its first text, the task's instruction included.

        Those who play one task as a group pass the same ``task_id``, or the same seed.

        Args:
            task_id: The task; None lets the environment draw one.
            seed: Seeds that draw.

        Raises:
            UnknownTaskError: The data does not hold this task. The session then has no episode.
        """
        self._begun = False
        options = None if task_id is None else {"task_id": str(task_id)}
        self.observation, self.info = self.env.reset(seed=seed, options=options)
        self._begun = True
        self._executor = self._advice = None
        self.reward = self.episode_return = 0.0
        self.decisions = 0
        self.terminated = self.truncated = False
        return self._show(first=True)

    def step(self, answer: object) -> str:
        """Give one answer, as a model wrote it, and return the text that follows.

        Raises:
            EpisodeOverError: No episode is going on.
        """
        self._need_episode()
        if self.verbatim:
            return self.play(answer if isinstance(answer, str) else NOTHING)
        if self.planning:
            return self._take(read_blueprint(answer, self.goal).action())
        return self._take(read_command(answer, self.admissible))

    def play(self, action: str) -> str:
        """Send an action to the environment as it is, and return the text that follows.

        For those who have read the model's answer themselves, by rules of their own.

        Raises:
            EpisodeOverError: No episode is going on.
        """
        self._need_episode()
        return self._take(action)

    def act(self, command: object) -> str:
        """Carry out a command. In phase plan the task's goal becomes the only sub-goal first.

        Raises:
            EpisodeOverError: No episode is going on.
        """
        self._need_episode()
        if not self.planning:
            return self.step(command)
        text = self._take(NOTHING)
        if self.done:  # by a step limit that counts blueprints
            return text
        earlier = self.reward
        text = self.step(command)
        self.reward += earlier
        return text

    def write_blueprint(self, subgoals: object) -> str:
        """Begin phase act with these sub-goals.

        In phase act, and where no blueprint is wanted at all, it is an invalid command.

        Args:
            subgoals: The sub-goals in order, as a list of strings, or a text with one a line.

        Raises:
            EpisodeOverError: No episode is going on.
        """
        self._need_episode()
        if not self.planning:
            return f"A blueprint is not wanted now.\n{self._take(NOTHING)}"
        if isinstance(subgoals, Iterable) and not isinstance(subgoals, str | bytes):
            found = [text for s in subgoals if isinstance(s, str) and (text := clean(s))]
            return self._take(Blueprint.of(found).action() if found else NOTHING)
        return self._take(read_blueprint(subgoals, self.goal).action())

    def sub_done(self) -> str:
        """End the current sub-goal. In phase plan the task's goal becomes the only sub-goal.

        Raises:
            EpisodeOverError: No episode is going on.
        """
        self._need_episode()
        return self._take(NOTHING if self.planning else SUB_DONE)

    def _need_episode(self) -> None:
        if not self._begun or self.done:
            raise EpisodeOverError(self._begun)

    def _take(self, action: str) -> str:
        self.observation, reward, self.terminated, self.truncated, info = self.env.step(action)
        self.info = info
        self.reward = float(reward)
        self.episode_return += self.reward
        self.decisions += 1
        return self._show()

    def _show(self, first: bool = False) -> str:
        seen = dict(self.observation)
        if first and self.goal not in seen["text"]:
            seen["text"] = f"{seen['text']}\n\nTask: {self.goal}"
        # A finished episode asks for nothing any more.
        text = str(seen["text"]) if self.done else as_text(seen, self.plan_hint)
        if self.list_admissible and not self.done and self.admissible:
            text = f"{text}\n\nPossible now: {', '.join(self.admissible)}"
        self.text = text
        return text

    # ---- what there is to know -----------------------------------------------------------------
    @property
    def done(self) -> bool:
        """Whether the episode has ended."""
        return self.terminated or self.truncated

    @property
    def planning(self) -> bool:
        """Whether a blueprint is wanted now (phase plan); never on a flat environment."""
        return self.hierarchical and bool(self.observation) and self.observation["phase"] == 0

    @property
    def subgoal(self) -> str:
        """The current sub-goal; "" in phase plan and on a flat environment."""
        return str(self.observation.get("subgoal", ""))

    @property
    def task_id(self) -> str:
        """The task's id; "" before the first reset."""
        return str(self.info.get("task_id", ""))

    @property
    def goal(self) -> str:
        """The task's instruction."""
        return str(self.info.get("goal", ""))

    @property
    def admissible(self) -> list[str]:
        """The commands that are possible now, ``<sub_done>`` last; none in phase plan."""
        return list(self.info.get("admissible", ()))

    @property
    def won(self) -> bool:
        """Whether the task is solved."""
        return bool(self.info.get("won", False))

    @property
    def score(self) -> float:
        """The benchmark's progress, in [0, 1]."""
        return float(self.info.get("score", 0.0))

    @property
    def invalid(self) -> bool:
        """Whether the last answer was no command that the environment understands."""
        return bool(self.info.get("invalid", False))

    @property
    def image(self) -> NDArray[np.uint8] | None:
        """The picture of the present state, (height, width, 3); None where there are none."""
        found: NDArray[np.uint8] | None = self.observation.get("image")
        return found

    @property
    def max_decisions(self) -> int | None:
        """The most decisions that an episode can have; None where the environment sets no limit."""
        env: Any = self.env.unwrapped
        steps = getattr(env, "max_steps", None)
        if not isinstance(env, HierarchicalEnv):
            return None if steps is None else int(steps)
        return env.max_steps + (env.replans + 1) * (env.max_subgoals + 1)

    def task_ids(self, split: str | None = None) -> Sequence[str]:
        """Return the ids of a split's tasks (None: the environment's own split), sorted."""
        env: Any = self.env.unwrapped
        found: Sequence[str] = env.task_ids(split)
        return found

    def summary(self) -> dict[str, Any]:
        """Return the plain values of the episode so far, for metadata, logs and JSON."""
        return {
            "task_id": self.task_id,
            "won": self.won,
            "score": self.score,
            "invalid": self.invalid,
            "step": int(self.info.get("step", 0)),
            "episode_return": self.episode_return,
            "truncated": self.truncated,
        }

    def expert(self) -> str:
        """Return the answer that an expert would give now: a blueprint, a command, ``<sub_done>``.

        It sees the hidden state. It serves demonstrations and tests. Asked twice before the same
        decision it says the same.

        Raises:
            EpisodeOverError: No episode is going on.
            ValueError: The task cannot be won from here.
        """
        self._need_episode()
        if self._advice is None or self._advice[0] != self.decisions:
            self._advice = (self.decisions, self._ask_expert())
        return self._advice[1]

    def _ask_expert(self) -> str:
        env: Any = self.env.unwrapped
        if self.planning:
            return str(env.oracle_blueprint().render())
        if self.hierarchical:
            self._executor = self._executor or OracleExecutor(env)
            return self._executor(self.observation, self.info)
        command = next(iter(env.oracle()), None)
        if command is None:
            raise ValueError(f"the expert knows no command for {self.task_id} from here")
        return str(command)

    # ---- copies and the end --------------------------------------------------------------------
    def fork(self, *, state: bool = True, **kwargs: Any) -> Session:
        """Return a session like this one, at the same place of the same episode.

        Nothing that changes is shared. A step limit of Gymnasium's (``max_episode_steps``) has
        counted the same steps; wrappers of your own begin anew. The copy's expert plans from here
        on, and may reach a sub-goal by another way than the one that this session's expert is on.

        Args:
            state: False: a fresh one, without an episode.
            **kwargs: Settings in which the copy differs.
        """
        settings: dict[str, Any] = {
            "verbatim": self.verbatim,
            "list_admissible": self.list_admissible,
            "plan_hint": self.plan_hint,
        }
        other = Session(self.env_id, **{**settings, **self._kwargs, **kwargs})
        if state and self._begun:
            env: Any = self.env.unwrapped
            # The copy's wrappers want a reset before a step.
            other.reset(self.task_id)
            target: Any = other.env.unwrapped
            target.restore(env.snapshot())
            _carry_limits(self.env, other.env)
            other.text = self.text
            other.observation, other.info = deepcopy((self.observation, self.info))
            other.reward, other.episode_return = self.reward, self.episode_return
            other.decisions = self.decisions
            other.terminated, other.truncated = self.terminated, self.truncated
            other._advice = self._advice
        return other

    def close(self) -> None:
        """Close the environment. A closed session has no episode."""
        self._begun = False
        self.env.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _carry_limits(source: gym.Env[Any, Any], target: gym.Env[Any, Any]) -> None:
    """Let the target's step limits have counted what the source's have."""
    counted = [wrapper._elapsed_steps for wrapper in _limits(source)]
    for wrapper, steps in zip(_limits(target), counted, strict=False):
        wrapper._elapsed_steps = steps


def _limits(env: gym.Env[Any, Any]) -> Iterator[TimeLimit[Any, Any]]:
    while isinstance(env, gym.Wrapper):
        if isinstance(env, TimeLimit):
            yield env
        env = env.env
