"""The one base class of every environment of the suite, and the contract that it keeps.

A `TaskEnv` is a text environment over a benchmark's tasks: an observation holds ``text`` (and
``image`` where the environment is visual), an action is one command, and ``info`` always holds the
same keys. Subclasses write the benchmark's rules; seeding, task choice, step counting, reward
shapes, snapshots and rendering are written once, here.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias, cast

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray

from himac_envs._version import __version__
from himac_envs.blueprint import MAX_SUBGOALS, Blueprint
from himac_envs.digests import digest
from himac_envs.errors import HiMACError
from himac_envs.spaces import MAX_TEXT, FreeText

Observation: TypeAlias = dict[str, Any]
Info: TypeAlias = dict[str, Any]
RewardMode: TypeAlias = Literal["original", "sparse", "verl-agent"]

REWARD_MODES: tuple[str, ...] = ("original", "sparse", "verl-agent")
#: What `TextOnly` says in phase plan.
PLAN_HINT = "Write a blueprint: one numbered sub-goal a line."


class StepLimited(gym.Env[Any, Any]):
    """An environment whose `spec` tells the step limit that it keeps itself.

    ``gym.make`` takes ``max_episode_steps`` of a registration for a wrapper of its own, which
    ``max_steps`` could then only shorten. So ``gym.spec(id).max_episode_steps`` stays None, and
    ``env.spec.max_episode_steps`` is the limit of the environment that was made.
    """

    _spec: EnvSpec | None = None

    def _longest_episode(self) -> int:
        """Return the most steps that an episode can have."""
        raise NotImplementedError

    @property
    def spec(self) -> EnvSpec | None:
        """What the environment was made from, with its step limit as ``max_episode_steps``."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        if spec is not None:
            spec = copy.copy(spec)
            spec.max_episode_steps = self._longest_episode()
        self._spec = spec


@dataclass(slots=True)
class Outcome:
    """What a benchmark's rules answer to one command (or to the start of a task).

    Attributes:
        text: What the agent reads.
        reward: The benchmark's own reward of this step.
        terminated: Whether the benchmark ends the episode here.
        won: Whether the task is solved now.
        score: Progress in [0, 1], as the benchmark defines it.
        invalid: Whether the command was not understood or had no effect by the rules.
        extra: Further keys for ``info``.
    """

    text: str
    reward: float = 0.0
    terminated: bool = False
    won: bool = False
    score: float = 0.0
    invalid: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A task environment's whole state in mid-episode; `TaskEnv.restore` takes it back."""

    task_id: str
    steps: int
    done: bool
    last: str
    rng: Any
    state: Any


class TaskEnv(StepLimited, gym.Env[Observation, str], ABC):
    """Base class of the flat environments: one task an episode, one command a step.

    Args:
        split: Which tasks: "train", "valid", "test", "all" or a name of the benchmark's own.
        data: A folder with the benchmark's data, "generated", or None: the official set where
            ``himac data get`` installed one, else generated tasks.
        max_steps: Commands after which the episode is truncated (None: the benchmark's default).
        render_mode: "ansi", "rgb_array" (visual environments) or None.
        reward: "original" (the benchmark's own), "sparse" (1 on success, else 0) or "verl-agent"
            (10 on success, -0.1 for an invalid action).

    Subclasses implement `task_ids`, `_start`, `_act`, `_admissible`, `_goal`, `_save`, `_load`,
    `oracle`, `oracle_blueprint` and `achieved`, and set `default_max_steps` and `data_name`. Where
    `_save` holds more than what the future depends on, they also implement `_essence`. Where tasks
    are of several kinds, the property `task_type` names the kind of the one being played: reports
    and evaluations then tell success by kind.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 4}  # noqa: RUF012
    default_max_steps: ClassVar[int] = 50
    default_max_subgoals: ClassVar[int] = MAX_SUBGOALS
    data_name: str = "generated"

    @property
    def data_version(self) -> str:
        """The version of the data set: of what comes with the package, its own; else ""."""
        return __version__ if self.data_name.startswith("generated") else ""

    def __init__(
        self,
        *,
        split: str = "train",
        data: str | None = None,
        max_steps: int | None = None,
        render_mode: str | None = None,
        reward: RewardMode = "original",
    ) -> None:
        if reward not in REWARD_MODES:
            raise ValueError(f"reward={reward!r}: choose one of {', '.join(REWARD_MODES)}")
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            modes = ", ".join(map(repr, self.metadata["render_modes"]))
            raise ValueError(f"render_mode={render_mode!r}: {type(self).__name__} has {modes}")
        if max_steps is not None and max_steps < 1:
            raise ValueError(f"max_steps={max_steps}: an episode needs at least one step")
        self.split = split
        self.data = None if data is None else str(data)
        self.max_steps = self.default_max_steps if max_steps is None else int(max_steps)
        self.render_mode = render_mode
        self.reward_mode: str = reward
        self.observation_space: spaces.Dict = spaces.Dict({"text": FreeText()})
        self.action_space: FreeText = FreeText()
        self._task_id = ""
        self._steps = 0
        self._done = False
        self._last = ""

    # ---- what a benchmark writes -----------------------------------------------------------
    @abstractmethod
    def task_ids(self, split: str | None = None) -> Sequence[str]:
        """Return the ids of a split's tasks, sorted, the same on every machine.

        Args:
            split: A split's name; None is the environment's own.
        """

    @abstractmethod
    def _start(self, task_id: str) -> Outcome:
        """Begin a task; raise `UnknownTaskError` for an id that the data does not hold."""

    @abstractmethod
    def _act(self, command: str) -> Outcome:
        """Carry out one command. Never raises, whatever the text."""

    @abstractmethod
    def _admissible(self) -> list[str]:
        """Return a new list of the commands that the benchmark offers now, in its order."""

    @abstractmethod
    def _goal(self) -> str:
        """Return the task's instruction."""

    @abstractmethod
    def _save(self) -> Any:
        """Return the rules' state; nothing in it may change as the episode goes on."""

    @abstractmethod
    def _load(self, state: Any) -> None:
        """Take back what `_save` returned (the task itself is already started)."""

    def _essence(self) -> Any:
        """Return what the future depends on, as a value; see `state_key`. All that is saved."""
        return self._save()

    @abstractmethod
    def oracle(self, subgoal: str | None = None) -> Iterator[str]:
        """Yield an expert's commands for a sub-goal (None: the whole task) from here on.

        The plan is recomputed when the state changed under the iterator. The iterator ends when
        the sub-goal is achieved.

        Raises:
            ValueError: The sub-goal is not understood, or cannot be reached from here.
        """

    @abstractmethod
    def oracle_blueprint(self) -> Blueprint:
        """Return an expert's sub-goals for the task from the present state."""

    @abstractmethod
    def achieved(self, subgoal: str) -> bool | None:
        """Return whether the sub-goal holds now; None where its text is not understood."""

    def _longest_episode(self) -> int:
        return self.max_steps

    def _frame(self) -> NDArray[np.uint8]:
        """Return the picture of the present state, (height, width, 3) uint8."""
        raise HiMACError(f"{type(self).__name__} has no pictures: use render_mode='ansi'")

    # ---- Gymnasium -------------------------------------------------------------------------
    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Info]:
        """Begin an episode.

        Args:
            seed: Seeds the environment's generator, which chooses the task.
            options: ``{"task_id": id}`` plays that task. No other key is known.

        Returns:
            The first observation and its info, with ``info["data"]``, the data set's name.
        """
        super().reset(seed=seed)
        options = dict(options or {})
        task_id = options.pop("task_id", None)
        if options:
            raise ValueError(f"unknown reset options {sorted(options)}: only 'task_id' is known")
        if task_id is None:
            ids = self.task_ids()
            task_id = ids[int(self.np_random.integers(len(ids)))]
        outcome = self._start(str(task_id))
        self._task_id = str(task_id)
        self._steps = 0
        self._done = False
        self._last = outcome.text
        info = self._info(outcome)
        info["data"] = self.data_name
        return self._observation(outcome), info

    def step(self, action: str) -> tuple[Observation, float, bool, bool, Info]:
        """Carry out one command.

        An action that is not a string counts as an empty command: it is invalid and costs a step.
        """
        command = action if isinstance(action, str) else ""
        outcome = self._act(command)
        self._steps += 1
        reward = self._reward(outcome)
        terminated = bool(outcome.terminated)
        truncated = not terminated and self._steps >= self.max_steps
        self._done = self._done or terminated or truncated
        self._last = f"> {command}\n{outcome.text}"
        return self._observation(outcome), reward, terminated, truncated, self._info(outcome)

    def render(self) -> Any:
        """Return the last exchange as text ("ansi") or the state's picture ("rgb_array")."""
        if self.render_mode == "ansi":
            return self._last
        if self.render_mode == "rgb_array":
            return self._frame()
        return None

    def _reward(self, outcome: Outcome) -> float:
        if self.reward_mode == "original":
            return float(outcome.reward)
        success = 1.0 if outcome.won and not self._done else 0.0
        if self.reward_mode == "sparse":
            return success
        return 10.0 * success - (0.1 if outcome.invalid else 0.0)

    def _observation(self, outcome: Outcome) -> Observation:
        text = outcome.text
        observation: Observation = {"text": text if len(text) <= MAX_TEXT else text[:MAX_TEXT]}
        if "image" in self.observation_space.spaces:
            observation["image"] = self._frame()
        return observation

    def _info(self, outcome: Outcome) -> Info:
        return {
            "task_id": self._task_id,
            "goal": self._goal(),
            "admissible": self._admissible(),
            "won": bool(outcome.won),
            "score": float(outcome.score),
            "invalid": bool(outcome.invalid),
            "step": self._steps,
            **outcome.extra,
        }

    # ---- state -----------------------------------------------------------------------------
    @property
    def task_id(self) -> str:
        """The id of the task being played ("" before the first reset)."""
        return self._task_id

    @property
    def task_type(self) -> str:
        """The kind of the task being played, for results by kind ("" where there are none)."""
        return ""

    def snapshot(self) -> Snapshot:
        """Return the whole state of the episode; `restore` continues from it any number of times.

        Raises:
            gymnasium.error.ResetNeeded: No episode has begun.
        """
        if not self._task_id:
            raise gym.error.ResetNeeded("call reset() before snapshot()")
        return Snapshot(
            task_id=self._task_id,
            steps=self._steps,
            done=self._done,
            last=self._last,
            rng=copy.deepcopy(self.np_random.bit_generator.state),
            state=self._save(),
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Continue from a `snapshot` taken from this environment or one made alike."""
        if self._task_id != snapshot.task_id:
            self._start(snapshot.task_id)
        self._task_id = snapshot.task_id
        self._steps = snapshot.steps
        self._done = snapshot.done
        self._last = snapshot.last
        self.np_random.bit_generator.state = copy.deepcopy(snapshot.rng)
        self._load(snapshot.state)

    def state_key(self) -> str:
        """Return the name of the present state: where it is equal, so is what can follow.

        From two states of one key the same commands get the same answers (text, reward, win, score,
        admissible commands), and `achieved` says the same of every sub-goal. Left out are the steps
        that were taken, so that a truncation may come earlier; what only the experts remember, such
        as which cupboards were looked into; the generator; what is printed when the episode is over
        (no decision follows it); and an environment's own further keys of ``info``. The key is a
        function of the state alone, the same in every process. It says more than the observation
        does: an agent that is given it knows what it has not seen.

        Returns:
            32 hexadecimal digits.

        Raises:
            gymnasium.error.ResetNeeded: No episode has begun.
        """
        if not self._task_id:
            raise gym.error.ResetNeeded("call reset() before state_key()")
        return digest((self._task_id, self._done, self._essence()))


def as_text(observation: Observation, plan_hint: str = PLAN_HINT) -> str:
    """Return an observation as one string: its text, and below it what the hierarchy asks for.

    Args:
        observation: Of a flat or a hierarchical environment.
        plan_hint: What is said in phase plan.
    """
    text = str(observation["text"])
    if "phase" not in observation:
        return text
    if int(observation["phase"]) == 0:
        return f"{text}\n\n{plan_hint}"
    return f"{text}\n\nCurrent sub-goal: {observation['subgoal']}"


class TextOnly(gym.Wrapper[str, str, Observation, str]):
    """Plain ``str`` observations (and actions), for agents that know nothing of Dict spaces.

    On a hierarchical environment the phase is told in words: what to write in phase plan, and the
    current sub-goal in phase act.

    Example:
        >>> env = TextOnly(gym.make("HiMAC-ALFWorld-Flat-v0"))  # doctest: +SKIP
        >>> text, info = env.reset(seed=0)  # doctest: +SKIP
    """

    def __init__(self, env: gym.Env[Observation, str]) -> None:
        seen = env.observation_space
        if not (isinstance(seen, spaces.Dict) and "text" in seen.spaces):
            raise TypeError(f"TextOnly needs observations with a text, not {seen}")
        super().__init__(env)  # type: ignore[arg-type]  # Wrapper's types cannot say a change
        self.observation_space = FreeText(2 * MAX_TEXT)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, Info]:
        """Begin an episode; see `TaskEnv.reset`."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self.observation(cast(Observation, observation)), info

    def step(self, action: str) -> tuple[str, float, bool, bool, Info]:
        """Carry out one action; see `TaskEnv.step`."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        seen = self.observation(cast(Observation, observation))
        return seen, float(reward), terminated, truncated, info

    def observation(self, observation: Observation) -> str:
        """Return the observation as one string."""
        return as_text(observation)
