"""Credit from continuations: at the ends of sub-goals, the state is restored and played on from.

No method here learns so; the benchmark asks whether one should. At equal environment steps: half of
a group's episodes are played, and what the others would have cost is spent on continuations.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from himac_agents.experiments.credit.policy import Node, Simulator
from himac_agents.policies import noise
from himac_agents.rollouts.types import Episode


@dataclass
class _Boundary:
    """A state in which a sub-goal begins.

    Attributes:
        node: The state.
        left: Steps until the episode is truncated.
        ends: Whether each way on from here succeeded: the episodes', and the continuations'.
    """

    node: Node
    left: int
    ends: list[bool] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Vine:
    """A command's credit is what its sub-goal gained: V at its end less V at its beginning.

    V of a state in which a sub-goal begins is the share of successes among the ways on from it:
    those of the episodes that came there, and those of continuations, one from each such state in
    turn until the steps are used up.

    Attributes:
        simulator: Restores states and plays on.
        seed: Of the continuations.
    """

    simulator: Simulator
    seed: int = 0

    def credit(self, episodes: Sequence[Episode]) -> list[Episode]:
        """Tells the first half of each group's episodes; see `Estimator.credit`.

        Returns:
            The episodes that were told.
        """
        told: list[Episode] = []
        groups: dict[int, list[Episode]] = {}
        for episode in episodes:
            groups.setdefault(episode.request.group, []).append(episode)
        for group in groups.values():
            half = max(1, len(group) // 2)
            steps = sum(episode.steps for episode in group[half:])
            self._credit(group[:half], steps)
            told += group[:half]
        return told

    def _credit(self, group: Sequence[Episode], steps: int) -> None:
        known: dict[tuple[int, int], _Boundary] = {}
        walks = [self._walk(episode, known) for episode in group]
        task_id, number = group[0].request.task_id, group[0].request.group
        rng = random.Random(noise.key(self.seed, "vine", task_id, number, len(group)))
        places = list(known.values())
        rng.shuffle(places)
        last = steps + 1
        while 0 < steps < last:  # a round that costs nothing would go on for ever
            last = steps
            for place in places:
                if steps > 0:
                    won, used = self.simulator.play(place.node, place.left, rng)
                    place.ends.append(won)
                    steps -= used
        value = {key: float(np.mean(place.ends)) for key, place in known.items()}
        for episode, walk in zip(group, walks, strict=True):
            worth = [*(value[key] for key in walk), float(episode.success)]
            for segment, (before, after) in zip(episode.segments, pairwise(worth), strict=True):
                for turn in segment.turns:
                    turn.advantage = after - before

    def _walk(
        self, episode: Episode, known: dict[tuple[int, int], _Boundary]
    ) -> list[tuple[int, int]]:
        """The keys of the states in which an episode's sub-goals begin."""
        assert episode.blueprint is not None
        node: Node | bool = self.simulator.begin(episode.request.task_id, episode.blueprint)
        left, walk = self.simulator.limit, []
        for segment in episode.segments:
            assert isinstance(node, Node)
            key = (id(node), left)  # the simulator has one node for each state of the hierarchy
            known.setdefault(key, _Boundary(node, left)).ends.append(episode.success)
            walk.append(key)
            for turn in segment.turns:
                assert isinstance(node, Node)
                node, steps = self.simulator.follow(node, turn.action)
                left -= steps
        return walk
