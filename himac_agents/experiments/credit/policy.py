"""Frozen policies whose every probability is known, and a simulator that plays them from any state.

A policy that is Markov in the state and the sub-goal has one true value in each state. It is found
by playing on from there many times, which a table of the transitions met so far makes cheap: states
of one key have one future (`HierarchicalEnv.state_key`), so a command has to be carried out once.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from himac_agents.agents.conversation import Memory
from himac_agents.agents.expert import Expert
from himac_agents.policies import noise as randomness
from himac_agents.policies.base import Completion, Role
from himac_envs.blueprint import SUB_DONE, Blueprint
from himac_envs.hierarchy import HierarchicalEnv, HierarchySnapshot

#: Admissible commands of each state that are given by mistake: always the same ones there, as a
#: trained policy's mistakes are. (Were every command possible, hardly a state would be met twice.)
SLIPS = 2

#: No episode is cut off by the environment itself in the simulator, which counts the steps.
_ENDLESS = 10**9


@dataclass(frozen=True, slots=True)
class Strength:
    """How well a scripted executor plays.

    Attributes:
        noise: Chance of one of the state's `SLIPS` instead of the expert's command.
        early: Chance of `<sub_done>`, whether or not the sub-goal is achieved.
    """

    noise: float
    early: float


class Scripted(Expert):
    """An executor that plays the oracle's command for its sub-goal, or another by chance.

    What it does depends on the task's state, the sub-goal and on whether there is a next one, and
    on nothing else. A sub-goal that cannot be reached any more is given up; the last one cannot be,
    and behind it only mistakes are left.

    Args:
        strength: How well it plays.
        seed: Of its choices; they depend on this and on the episode.
    """

    def __init__(self, strength: Strength, seed: int = 0) -> None:
        super().__init__("oracle", seed=seed)
        self.strength = strength
        self._known: dict[tuple[str, str, bool], tuple[list[str], list[float]]] = {}

    def answer(self, role: Role, memory: Memory) -> Completion:
        """See `Expert.answer`; it writes no blueprints."""
        if role != "executor":
            raise ValueError("a scripted executor carries out blueprints that are given")
        assert memory.env is not None
        if (rng := memory.expert.get(self)) is None:
            rng = memory.expert[self] = randomness.generator("scripted", self.seed, memory.noise)
        commands, chances = self.choices(memory.env.unwrapped, memory.info["admissible"])
        drawn = bisect_right(list(accumulate(chances)), float(rng.random()))
        command = commands[min(drawn, len(commands) - 1)]
        return Completion(self.prompts.write_command(command))

    def choices(
        self, env: HierarchicalEnv, admissible: Sequence[str]
    ) -> tuple[list[str], list[float]]:
        """The commands that may come now, and their probabilities."""
        key = (env.task.state_key(), env.subgoal, env.blueprint_done)
        if key not in self._known:
            self._known[key] = self._chances(env, admissible, *key)
        return self._known[key]

    def _chances(
        self,
        env: HierarchicalEnv,
        admissible: Sequence[str],
        state: str,
        subgoal: str,
        last: bool,
    ) -> tuple[list[str], list[float]]:
        best = self._best(env, last)
        offered = [c for c in admissible if c not in (SUB_DONE, best)]
        drawn = randomness.generator("slips", state, subgoal)
        places = drawn.permutation(len(offered))[:SLIPS]
        slips = [offered[int(i)] for i in sorted(places)]
        noise, early = self.strength.noise, 0.0 if last else self.strength.early
        if best is None:  # out of reach: the next sub-goal, where there is one
            best, early = None if last else SUB_DONE, 0.0
        chances = {} if best is None else {best: 1.0 - noise - early}
        if early:
            chances[SUB_DONE] = chances.get(SUB_DONE, 0.0) + early
        share = (noise if chances else 1.0) / max(1, len(slips))
        chances |= dict.fromkeys(slips, share)
        whole = sum(chances.values())  # less than 1 where there is nothing to slip to
        return list(chances), [chance / whole for chance in chances.values()]

    def _best(self, env: HierarchicalEnv, last: bool) -> str | None:
        if env.task.achieved(env.subgoal):
            return None if last else SUB_DONE
        try:
            return next(iter(env.task.oracle(env.subgoal)), None)
        except ValueError:  # out of reach from here
            return None

    def forget(self) -> None:
        """Drops what is known of the states of a task that is done with."""
        self._known.clear()


@dataclass(slots=True, eq=False)
class Node:
    """A state of the hierarchy in phase act.

    Attributes:
        state: To continue from.
        commands: What may come.
        reach: The sums of their probabilities up to each.
        ways: Where each command leads: a node, or True or False for an end that is a success or
            not; with the steps that it took. None: not tried yet.
    """

    state: HierarchySnapshot
    commands: list[str]
    reach: list[float]
    ways: list[tuple[Node | bool, int] | None] = field(default_factory=list)


class Simulator:
    """Plays a scripted policy on from any state, under blueprints of one task.

    What one blueprint has shown serves another from where as much of them is left.

    Args:
        env: The hierarchy. Its step limit is taken away, and counted here instead.
        policy: Who plays.
    """

    def __init__(self, env: HierarchicalEnv, policy: Scripted) -> None:
        self.env, self.policy = env, policy
        self.limit = env.task.max_steps
        env.task.max_steps = _ENDLESS
        self._task = ""
        self._nodes: dict[tuple[str, tuple[str, ...], bool, int | None], Node] = {}

    def begin(self, task_id: str, blueprint: Blueprint) -> Node:
        """The first state of a task under a blueprint; what is known of another task is dropped."""
        if task_id != self._task:
            self._nodes.clear()
        self._task = task_id
        self.env.reset(options={"task_id": task_id})
        *_, info = self.env.step(blueprint.action())
        return self._here(info, blueprint)

    def _here(self, info: dict[str, Any], blueprint: Blueprint) -> Node:
        env = self.env
        left = tuple(blueprint.texts()[env.subgoal_index :])
        key = (env.task.state_key(), left, env.blueprint_done, env.steps_left)
        if key not in self._nodes:
            commands, chances = self.policy.choices(env, info["admissible"])
            ways: list[tuple[Node | bool, int] | None] = [None] * len(commands)
            reach = list(accumulate(chances))
            self._nodes[key] = Node(env.snapshot(), commands, reach, ways)
        return self._nodes[key]

    def step(self, node: Node, number: int) -> tuple[Node | bool, int]:
        """Where a node's command of this number leads, and how many steps it takes."""
        way = node.ways[number]
        if way is None:
            self.env.restore(node.state)
            *_, terminated, _, info = self.env.step(node.commands[number])
            steps = int(info["step"]) - node.state.task.steps
            blueprint = node.state.blueprint
            assert blueprint is not None
            way = (bool(info["won"]) if terminated else self._here(info, blueprint), steps)
            node.ways[number] = way
        return way

    def follow(self, node: Node, command: str) -> tuple[Node | bool, int]:
        """The same for a command.

        Raises:
            ValueError: The policy never gives this command here.
        """
        return self.step(node, node.commands.index(command))

    def success(self, node: Node | bool, left: int, times: int, rng: random.Random) -> float:
        """How often a continuation succeeds.

        Args:
            node: From where; an end is what it is.
            left: Steps until the episode is truncated.
            times: Continuations.
            rng: Draws the commands.
        """
        won = sum(self.play(node, left, rng)[0] for _ in range(times))
        return won / times

    def play(self, node: Node | bool, left: int, rng: random.Random) -> tuple[bool, int]:
        """One continuation: whether it succeeds, and how many steps it takes."""
        limit = left
        while isinstance(node, Node) and left > 0:
            number = min(bisect_right(node.reach, rng.random()), len(node.commands) - 1)
            node, steps = node.ways[number] or self.step(node, number)
            left -= steps
        return node is True, limit - left
