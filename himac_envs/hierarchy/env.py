"""The hierarchy as an environment: first a blueprint, then sub-goal steps.

`HierarchicalEnv` puts an option interface over any `TaskEnv`. An episode alternates between two
phases: in phase plan (0) the action is a blueprint, in phase act (1) it is a primitive command or
``<sub_done>``, which ends the current sub-goal without a step of the task. The views in
`himac_envs.hierarchy.views` show the same environment from one side only.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import gymnasium as gym
from gymnasium import spaces

from himac_envs.blueprint import MAX_BLUEPRINT, SUB_DONE, Blueprint
from himac_envs.digests import digest
from himac_envs.hierarchy.records import HierarchySnapshot, OptionState
from himac_envs.spaces import FreeText
from himac_envs.task import Info, Observation, StepLimited, TaskEnv

PLAN, ACT = 0, 1


class HierarchicalEnv(StepLimited, gym.Env[Observation, str]):
    """A task with a blueprint above it: the option interface of the suite.

    ## Description
    The episode begins in phase plan. A blueprint (numbered lines, tags or a JSON list; see
    `Blueprint.parse`) moves to phase act without a step of the task. There, commands go to the
    task, and ``<sub_done>`` ends the current sub-goal and begins the next.

    ## Action Space
    `FreeText`: a blueprint in phase plan; a command or ``<sub_done>`` in phase act.

    ## Observation Space
    ``Dict``: the task's ``text`` (and ``image``), ``phase`` (Discrete(2): 0 plan, 1 act),
    ``blueprint`` and ``subgoal`` (text, "" in phase plan before the first blueprint) and
    ``subgoal_index`` (Discrete(max_subgoals)).

    ## Starting State
    The task's, in phase plan.

    ## Rewards
    The task's. A blueprint and a ``<sub_done>`` that ends a sub-goal bring 0.

    ## Episode End
    The task's termination or truncation. When the last sub-goal has ended and no replan is left,
    that sub-goal stays active and ``<sub_done>`` goes to the task as an invalid command that costs
    a step. So an episode has at most ``max_steps + (replans + 1) * (max_subgoals + 1)`` decisions.

    ## Information
    The task's keys, with ``admissible`` ``[]`` in phase plan and ``<sub_done>`` last in phase act.
    After a blueprint: ``blueprint_valid`` and ``blueprint_dropped``. When a sub-goal ends:
    ``option`` = ``{"index", "subgoal", "steps", "reward", "reason", "achieved"}`` with reason
    "done", "budget", "terminated" or "truncated"; ``achieved`` is None where the task does not
    understand the sub-goal. The options' rewards sum to the return, their steps to the length.
    ``blueprint_done``: whether every sub-goal of the blueprint has ended. Then either a new one is
    asked for (phase plan), or the last sub-goal stays active until the episode ends.

    ## Arguments
    ``max_subgoals``: sub-goals kept of a blueprint (None: 8, more where the tasks are long).
    ``subgoal_budget``: steps after which the next sub-goal begins by itself (None: only by
    ``<sub_done>``); `steps_left` counts them down. ``replans``: how often a finished blueprint is
    followed by another phase plan. ``sub_done``: False takes ``<sub_done>`` away (it is then no
    more than an invalid command), so that sub-goals end by ``subgoal_budget`` alone.

    ## Version History
    - v0: first release. What changed in the tasks below stands in their own classes' histories
      (`SokobanEnv`, `WebShopEnv`: splits mended).
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 4}  # noqa: RUF012

    def __init__(
        self,
        task: TaskEnv,
        *,
        max_subgoals: int | None = None,
        subgoal_budget: int | None = None,
        replans: int = 0,
        sub_done: bool = True,
    ) -> None:
        if max_subgoals is None:
            max_subgoals = task.default_max_subgoals
        if max_subgoals < 1:
            raise ValueError(f"max_subgoals={max_subgoals}: a blueprint has at least one")
        if subgoal_budget is not None and subgoal_budget < 1:
            raise ValueError(f"subgoal_budget={subgoal_budget}: use None for no budget")
        if replans < 0:
            raise ValueError(f"replans={replans}: must be 0 or more")
        if not sub_done and subgoal_budget is None:
            raise ValueError("sub_done=False needs subgoal_budget: else no sub-goal would end")
        self.task = task
        self.max_subgoals = int(max_subgoals)
        self.subgoal_budget = subgoal_budget
        self.replans = int(replans)
        self.sub_done = bool(sub_done)
        self.metadata = dict(task.metadata)
        self.action_space: FreeText = FreeText()
        self.observation_space: spaces.Dict = spaces.Dict(
            {
                **task.observation_space.spaces,
                "phase": spaces.Discrete(2),
                "blueprint": FreeText(2 * MAX_BLUEPRINT),
                "subgoal": FreeText(MAX_BLUEPRINT),
                "subgoal_index": spaces.Discrete(self.max_subgoals),
            }
        )
        self._phase = PLAN
        self._blueprint: Blueprint | None = None
        self._blueprint_text = ""
        self._option: OptionState | None = None
        self._tail = False
        self._literal = False  # see OptionView: <sub_done> goes to the task as it stands
        self._replans_left = self.replans
        self._options_begun = 0
        self._kept = True  # no sub-goal has ended in failure so far
        self._done = True
        self._last: Observation = {}
        self._task_info: Info = {}

    # ---- Gymnasium -------------------------------------------------------------------------
    @property
    def render_mode(self) -> str | None:  # type: ignore[override]
        """The task's render mode."""
        return self.task.render_mode

    @property
    def max_steps(self) -> int:
        """The task's step limit."""
        return self.task.max_steps

    @property
    def max_decisions(self) -> int:
        """The most decisions that an episode can have: steps, blueprints and ``<sub_done>``."""
        return self.max_steps + (self.replans + 1) * (self.max_subgoals + 1)

    def _longest_episode(self) -> int:
        return self.max_decisions

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Info]:
        """Begin an episode in phase plan; arguments as for the task."""
        observation, info = self.task.reset(seed=seed, options=options)
        # One generator for both: the hierarchy itself draws nothing.
        self._np_random, self._np_random_seed = self.task.np_random, self.task.np_random_seed
        self._phase, self._option = PLAN, None
        self._blueprint, self._blueprint_text = None, ""
        self._tail, self._replans_left, self._options_begun = False, self.replans, 0
        self._done, self._kept = False, True
        self._keep(observation, info)
        info["admissible"], info["blueprint_done"] = [], False
        return self._observe(observation), info

    def step(self, action: str) -> tuple[Observation, float, bool, bool, Info]:
        """Take a blueprint (phase plan) or a command or ``<sub_done>`` (phase act).

        Raises:
            gymnasium.error.ResetNeeded: The episode is over, or none has begun.
        """
        if self._done:
            raise gym.error.ResetNeeded("the episode is over (or has not begun): call reset()")
        if self._phase == PLAN:
            return self._plan(action)
        ends = self.sub_done and not self._tail and not self._literal
        if ends and isinstance(action, str) and action.strip() == SUB_DONE:
            return self._silent({"option": self._end("done")})
        return self.primitive(action)

    def render(self) -> Any:
        """Return the task's rendering; text comes with the phase and the sub-goal above it."""
        shown = self.task.render()
        if self.render_mode != "ansi":
            return shown
        if self._phase == PLAN:
            return f"[phase plan]\n{shown}"
        return f"[{self.subgoal_index + 1}. {self.subgoal}]\n{shown}"

    def close(self) -> None:
        """Close the task."""
        self.task.close()

    # ---- the option interface --------------------------------------------------------------
    def _plan(self, action: object) -> tuple[Observation, float, bool, bool, Info]:
        blueprint = Blueprint.parse(
            action, fallback=str(self._task_info["goal"]), max_subgoals=self.max_subgoals
        )
        self.begin(blueprint)
        return self._silent(
            {"blueprint_valid": blueprint.valid, "blueprint_dropped": blueprint.dropped}
        )

    def begin(self, blueprint: Blueprint) -> None:
        """Enter phase act with a blueprint that is already parsed."""
        self._blueprint, self._blueprint_text = blueprint, blueprint.render()
        self._phase, self._tail = ACT, False
        self._open(0)

    def _open(self, index: int) -> None:
        assert self._blueprint is not None
        self._option = OptionState(index, self._blueprint.subgoals[index].text)
        self._options_begun += 1

    def _end(self, reason: str) -> dict[str, Any]:
        """End the current option and begin what follows it; return the option's record."""
        option, blueprint = self._option, self._blueprint
        assert option is not None and blueprint is not None
        record = {
            "index": option.index,
            "subgoal": option.subgoal,
            "steps": option.steps,
            "reward": option.reward,
            "reason": reason,
            "achieved": self.task.achieved(option.subgoal),
        }
        self._kept = self._kept and record["achieved"] is not False
        if reason in ("terminated", "truncated"):
            return record
        if option.index + 1 < len(blueprint):
            self._open(option.index + 1)
        elif self._replans_left > 0:
            self._replans_left -= 1
            self._phase, self._option = PLAN, None
        else:
            # Nowhere to go: the last sub-goal stays active, as an option that only the episode's
            # end closes, so that steps and rewards still add up.
            self._tail = True
            self._open(option.index)
        return record

    def primitive(self, action: object) -> tuple[Observation, float, bool, bool, Info]:
        """Send one command to the task, whatever it says, as a step of the current option."""
        option = self._option
        assert option is not None
        command = action if isinstance(action, str) else ""
        observation, reward, terminated, truncated, info = self.task.step(command)
        reward = float(reward)
        self._option = replace(option, steps=option.steps + 1, reward=option.reward + reward)
        self._keep(observation, info)
        ended: str | None = None
        if terminated or truncated:
            self._done = True
            ended = "terminated" if terminated else "truncated"
        elif not self._tail and self._option.steps == self.subgoal_budget:
            ended = "budget"
        if ended is not None:
            info["option"] = self._end(ended)
        info["admissible"] = self._offer(info["admissible"])
        info["blueprint_done"] = self.blueprint_done
        return self._observe(observation), reward, terminated, truncated, info

    def stop(self, reason: str) -> Info:
        """End the episode from outside, as a wrapper's time limit does.

        Args:
            reason: "terminated" or "truncated".

        Returns:
            The open option's record as ``{"option": ...}``; nothing where none is open.
        """
        self._done = True
        return {} if self._option is None else {"option": self._end(reason)}

    def _silent(self, extra: Info) -> tuple[Observation, float, bool, bool, Info]:
        """Answer a decision in which the task did not move."""
        info = {**copy.deepcopy(self._task_info), "invalid": False, **extra}
        info["admissible"] = self._offer(self.task._admissible())
        info["blueprint_done"] = self.blueprint_done
        return self._observe(dict(self._last)), 0.0, False, False, info

    def _offer(self, admissible: list[str]) -> list[str]:
        if self._phase == PLAN:
            return []
        return [*admissible, SUB_DONE] if self.sub_done else list(admissible)

    def _keep(self, observation: Observation, info: Info) -> None:
        self._last = dict(observation)
        self._task_info = {k: v for k, v in info.items() if k not in ("admissible", "data")}

    def _observe(self, observation: Observation) -> Observation:
        if "image" in observation and observation["image"] is self._last["image"]:
            observation = {**observation, "image": observation["image"].copy()}
        return {
            **observation,
            "phase": self._phase,
            "blueprint": self._blueprint_text,
            "subgoal": self.subgoal,
            "subgoal_index": self.subgoal_index,
        }

    @property
    def phase(self) -> int:
        """0 in phase plan, 1 in phase act."""
        return self._phase

    @property
    def subgoal(self) -> str:
        """The current sub-goal's text ("" in phase plan)."""
        return "" if self._option is None else self._option.subgoal

    @property
    def subgoal_index(self) -> int:
        """The current sub-goal's place in the blueprint, from 0."""
        return 0 if self._option is None else self._option.index

    @property
    def option(self) -> OptionState | None:
        """The option in progress, or None in phase plan."""
        return self._option

    @property
    def steps_left(self) -> int | None:
        """Steps until the current sub-goal ends by itself; None where no budget ends one now."""
        if self.subgoal_budget is None or self._option is None or self._tail:
            return None
        return self.subgoal_budget - self._option.steps

    @property
    def blueprint_done(self) -> bool:
        """Whether every sub-goal of the blueprint has ended."""
        return self._tail or (self._phase == PLAN and self._blueprint is not None)

    @property
    def options_begun(self) -> int:
        """How many options this episode has begun: a counter that tells them apart."""
        return self._options_begun

    # ---- the task's own interface, one level up ---------------------------------------------
    def task_ids(self, split: str | None = None) -> Sequence[str]:
        """See `TaskEnv.task_ids`."""
        return self.task.task_ids(split)

    @property
    def task_id(self) -> str:
        """See `TaskEnv.task_id`."""
        return self.task.task_id

    @property
    def task_type(self) -> str:
        """See `TaskEnv.task_type`."""
        return self.task.task_type

    def oracle(self, subgoal: str | None = None) -> Iterator[str]:
        """See `TaskEnv.oracle`."""
        return self.task.oracle(subgoal)

    def oracle_blueprint(self) -> Blueprint:
        """See `TaskEnv.oracle_blueprint`."""
        return self.task.oracle_blueprint()

    def achieved(self, subgoal: str) -> bool | None:
        """See `TaskEnv.achieved`."""
        return self.task.achieved(subgoal)

    def snapshot(self) -> HierarchySnapshot:
        """Return the state of the hierarchy and of the task, in any phase."""
        return HierarchySnapshot(
            task=self.task.snapshot(),
            phase=self._phase,
            blueprint=self._blueprint,
            option=self._option,
            tail=self._tail,
            replans_left=self._replans_left,
            options_begun=self._options_begun,
            text=str(self._last["text"]),
            task_info=dict(self._task_info),
            done=self._done,
            kept=self._kept,
        )

    def restore(self, snapshot: HierarchySnapshot) -> None:
        """Continue from a `snapshot`."""
        self.task.restore(snapshot.task)
        self._phase, self._blueprint = snapshot.phase, snapshot.blueprint
        self._blueprint_text = "" if self._blueprint is None else self._blueprint.render()
        self._option, self._tail = snapshot.option, snapshot.tail
        self._replans_left, self._options_begun = snapshot.replans_left, snapshot.options_begun
        self._task_info = dict(snapshot.task_info)
        self._last = {"text": snapshot.text}
        if "image" in self.task.observation_space.spaces:
            self._last["image"] = self.task._frame()
        self._done, self._kept = snapshot.done, snapshot.kept

    def state_key(self) -> str:
        """Return the name of the present state; see `TaskEnv.state_key`.

        It is made of the task's, the phase, the blueprint with the place in it, the replans left,
        of whether everything that came before was achieved (or not understood), and of `steps_left`
        where there is a budget. Left out are also the reward of the option in progress, without a
        budget its steps, and the last answer, which a blueprint and ``<sub_done>`` show again.
        """
        plan = None if self._blueprint is None else tuple(self._blueprint.texts())
        place = (self._phase, plan, self.subgoal_index, self._tail, self._replans_left, self._kept)
        left = () if self.steps_left is None else (self.steps_left,)
        return digest((self.task.state_key(), self._done, (*place, *left)))


def load_entry_point(name: str) -> Any:
    """Return the object that "module:attribute" names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def make_hierarchical(
    task: str,
    *,
    max_subgoals: int | None = None,
    subgoal_budget: int | None = None,
    replans: int = 0,
    sub_done: bool = True,
    **kwargs: Any,
) -> gym.Env[Observation, str]:
    """Build the environment behind a hierarchical id.

    Args:
        task: "module:class" of the `TaskEnv` below, a string so that the spec stays JSON.
        max_subgoals: See `HierarchicalEnv`.
        subgoal_budget: See `HierarchicalEnv`.
        replans: See `HierarchicalEnv`.
        sub_done: See `HierarchicalEnv`.
        **kwargs: For the task. With ``render_mode="human"`` a task that has pictures is shown in a
            window (needs pygame).
    """
    maker = load_entry_point(task)
    modes = getattr(maker, "metadata", {}).get("render_modes", ())
    # Gymnasium does the same for entry points that are classes, whose modes it can see.
    human = kwargs.get("render_mode") == "human" and "human" not in modes and "rgb_array" in modes
    if human:
        kwargs["render_mode"] = "rgb_array"
    env = HierarchicalEnv(
        cast(TaskEnv, maker(**kwargs)),
        max_subgoals=max_subgoals,
        subgoal_budget=subgoal_budget,
        replans=replans,
        sub_done=sub_done,
    )
    return gym.wrappers.HumanRendering(env) if human else env
