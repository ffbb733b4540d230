"""Each level of the hierarchy as an ordinary environment, with the other level inside it.

`PlannerView` is the planner's world: the executor is part of it. `ExecutorView` is the executor's:
a planner has written the blueprint. `OptionView` is a semi-Markov decision process whose actions
are single sub-goals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import gymnasium as gym
from gymnasium import spaces

from himac_envs.blueprint import SUB_DONE, Blueprint, clean
from himac_envs.hierarchy.env import ACT, PLAN, HierarchicalEnv
from himac_envs.spaces import FreeText
from himac_envs.task import Info, Observation

#: Answers one decision of its level: (observation, info) -> action.
Actor: TypeAlias = Callable[[Observation, Info], str]


def hierarchical(env: gym.Env[Any, Any]) -> HierarchicalEnv:
    """Return the `HierarchicalEnv` in ``env``.

    Raises:
        TypeError: There is none.
    """
    inner = env.unwrapped
    if not isinstance(inner, HierarchicalEnv):
        raise TypeError(
            "a view needs a hierarchical environment (e.g. gym.make('HiMAC-ALFWorld-v0')), not "
            f"{type(inner).__name__}; HierarchicalEnv(task_env) wraps a flat one"
        )
    return inner


class _View(gym.Env[Observation, str]):
    """What the three views share: the environment below, spaces, rendering, closing.

    Attributes:
        env: The environment as it was given, with all its wrappers: every step goes through them.
        core: The `HierarchicalEnv` in it, whose state is looked at.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self.env, self.core = env, hierarchical(env)
        self.metadata = self.env.metadata
        self.action_space: FreeText = FreeText()
        self.observation_space: spaces.Space[Any] = self.env.observation_space
        self._observation: Observation = {}
        self._info: Info = {}

    @property
    def render_mode(self) -> str | None:  # type: ignore[override]
        """The task's render mode."""
        return self.env.render_mode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Info]:
        """Begin an episode; arguments as for the environment below."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._np_random, self._np_random_seed = self.env.np_random, self.env.np_random_seed
        self._observation, self._info = observation, info
        return observation, info

    def _send(self, action: str) -> tuple[float, bool, bool]:
        """Step the environment below and keep what it shows."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        if (terminated or truncated) and not self.core._done:
            # A wrapper ended the episode, such as Gymnasium's TimeLimit.
            info = {**self.core.stop("terminated" if terminated else "truncated"), **info}
        self._observation, self._info = observation, info
        return float(reward), terminated, truncated

    def render(self) -> Any:
        """Return the environment's rendering."""
        return self.env.render()

    def close(self) -> None:
        """Close the environment below."""
        self.env.close()


class PlannerView(_View):
    """The planner's world: an action is a blueprint, a step its whole execution.

    The reward is the sum over the execution. ``info["options"]`` lists the option records and
    ``info["duration"]`` counts the task's steps. An episode has one step, and one more for each
    replan.

    Args:
        env: A hierarchical environment.
        executor: Acts in phase act.
    """

    def __init__(self, env: gym.Env[Any, Any], executor: Actor) -> None:
        super().__init__(env)
        self.executor = executor

    def step(self, action: str) -> tuple[Observation, float, bool, bool, Info]:
        """Execute a blueprint until the episode ends or the planner is asked again."""
        before = self.core.task._steps
        total, terminated, truncated = self._send(action)
        told = ("blueprint_valid", "blueprint_dropped")
        blueprint = {k: v for k, v in self._info.items() if k in told}
        options = []
        while not (terminated or truncated) and self.core.phase == ACT:
            reward, terminated, truncated = self._send(self.executor(self._observation, self._info))
            total += reward
            if "option" in self._info:
                options.append(self._info["option"])
        info = {
            **self._info,
            **blueprint,
            "options": options,
            "duration": self.core.task._steps - before,
        }
        return self._observation, total, terminated, truncated, info


class ExecutorView(_View):
    """The executor's world: a planner's blueprint stands, an action is a command or ``<sub_done>``.

    Args:
        env: A hierarchical environment.
        planner: Writes the blueprint at reset, and again at each replan.
    """

    def __init__(self, env: gym.Env[Any, Any], planner: Actor) -> None:
        super().__init__(env)
        self.planner = planner

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Info]:
        """Begin an episode and let the planner write its blueprint."""
        _, info = super().reset(seed=seed, options=options)
        self._send(self.planner(self._observation, self._info))
        self._info = {**self._info, "data": info["data"]}
        return self._observation, self._info

    def step(self, action: str) -> tuple[Observation, float, bool, bool, Info]:
        """Act on the current sub-goal; a replan is answered before this returns."""
        total, terminated, truncated = self._send(action)
        if not (terminated or truncated) and self.core.phase == PLAN:
            ended = {"option": self._info["option"]}
            reward, terminated, truncated = self._send(self.planner(self._observation, self._info))
            total += reward
            self._info = {**self._info, **ended}
        return self._observation, total, terminated, truncated, self._info


class OptionView(_View):
    """A semi-MDP over sub-goals: an action is one sub-goal, a step its execution.

    ``info["duration"]`` counts the task's steps that the option took (the exponent of the
    discount) and ``info["option"]`` is its record. The episode ends with the task. After
    ``max_subgoals`` options that took no step at all, an immediate ``<sub_done>`` goes to the task
    as an invalid command and costs a step, so that no episode is endless.

    Args:
        env: A hierarchical environment.
        executor: Acts in phase act.
    """

    def __init__(self, env: gym.Env[Any, Any], executor: Actor) -> None:
        super().__init__(env)
        self.executor = executor
        self._free = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Info]:
        """Begin an episode."""
        self._free = self.core.max_subgoals
        return super().reset(seed=seed, options=options)

    def step(self, action: str) -> tuple[Observation, float, bool, bool, Info]:
        """Execute one sub-goal until its executor ends it, its budget is spent or the task ends."""
        if self.core._done:
            raise gym.error.ResetNeeded("the episode is over (or has not begun): call reset()")
        text = clean(action) if isinstance(action, str) else ""
        goal = str(self._info["goal"])
        blueprint = Blueprint.of([text]) if text else Blueprint.parse("", fallback=goal)
        # Each option is a blueprint of one: after it, the environment asks for the next.
        self.core._replans_left = 1
        total, terminated, truncated = self._send(blueprint.action())
        duration = 0
        while not (terminated or truncated):
            command = self.executor(self._observation, self._info)
            ends = isinstance(command, str) and command.strip() == SUB_DONE and self.core.sub_done
            self.core._literal = ends and duration == 0 and self._free == 0
            duration += not ends or self.core._literal
            reward, terminated, truncated = self._send(command)
            self.core._literal = False
            total += reward
            if "option" in self._info:
                break
        if duration == 0:
            self._free -= 1
        info = {**self._info, "duration": duration, "blueprint_valid": blueprint.valid}
        return self._observation, total, terminated, truncated, info


class OraclePlanner:
    """A planner that asks the environment's expert; ``OraclePlanner(env)(observation, info)``."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self.env = hierarchical(env)

    def __call__(self, observation: Observation, info: Info) -> str:
        """Return the expert's blueprint for the present state."""
        return self.env.oracle_blueprint().render()


class OracleExecutor:
    """An executor that asks the environment's expert, sub-goal by sub-goal.

    It answers ``<sub_done>`` when the sub-goal is achieved, and where the expert does not
    understand the sub-goal or cannot reach it. The task's own goal as a sub-goal is played whole.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self.env = hierarchical(env)
        self._playing: tuple[str, int] | None = None
        self._commands: Iterator[str] = iter(())

    def __call__(self, observation: Observation, info: Info) -> str:
        """Return the expert's next command for the observation's sub-goal."""
        now = (info["task_id"], self.env.options_begun)
        option = self.env.option
        if now != self._playing or (option is not None and option.steps == 0):
            self._playing = now
            subgoal = str(observation["subgoal"])
            whole = subgoal == clean(info["goal"])
            try:
                self._commands = self.env.oracle(None if whole else subgoal)
            except ValueError:
                self._commands = iter(())
        try:
            return next(self._commands, SUB_DONE)
        except ValueError:
            return SUB_DONE
