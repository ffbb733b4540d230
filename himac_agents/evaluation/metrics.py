"""What an episode of an evaluation amounts to, and what many amount to: counts, shares, intervals.

Intervals are over tasks: Wilson's 95% score intervals. Where each task is played with several
seeds of sampling, episodes of the same task are not independent; there are then as many trials as
tasks, the mean success of each its success. That is right where seeds of a task agree, and too wide
elsewhere: it never claims more than the tasks can show. What training again would give is another
question: see `himac_agents.evaluation.intervals`.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from himac_agents.evaluation.intervals import wilson
from himac_agents.rollouts.types import Episode


@dataclass(frozen=True, slots=True)
class Record:
    """One episode of an evaluation.

    Attributes:
        task_id: What was played.
        seed: With which sampling seed.
        task_type: The kind of task ("" where the environment tells none).
        success: Whether it was solved.
        score: The environment's progress measure at the end.
        reward: The sum of rewards.
        steps: Steps of the task.
        tokens: Tokens that the policies wrote.
        invalid: Commands that the environment did not understand.
        subgoals: Sub-goals of the blueprint; None on flat environments.
        blueprint_valid: Whether every blueprint could be parsed.
        options: The environment's records of the sub-goals.
        error: Why the episode was cut off, if it was; it counts as a failure.
        opening: A short hash of what the task showed at first, for the evaluation's manifest; ""
            where it showed nothing.
        cut: Answers that ended at the limit of their length, not by themselves.
    """

    task_id: str
    seed: int
    task_type: str
    success: bool
    score: float
    reward: float
    steps: int
    tokens: int
    invalid: int
    subgoals: int | None
    blueprint_valid: bool
    options: tuple[dict[str, Any], ...]
    error: str | None
    opening: str = ""
    cut: int = 0

    @classmethod
    def of(cls, episode: Episode, seed: int) -> Record:
        """The record of an episode that was played with a seed."""
        turns = [turn for turn in episode.turns() if turn.role == "executor"]
        blueprint = episode.blueprint
        return cls(
            task_id=episode.request.task_id,
            seed=seed,
            task_type=episode.task_type,
            success=episode.success,
            score=episode.score,
            reward=episode.reward,
            steps=episode.steps,
            tokens=episode.tokens,
            invalid=sum(turn.invalid for turn in turns),
            subgoals=None if blueprint is None else len(blueprint.texts()),
            blueprint_valid=episode.blueprint_valid,
            options=tuple(episode.options),
            error=episode.error,
            opening=opening_of(episode.first, episode.goal) if episode.first else "",
            cut=sum(turn.cut for turn in episode.turns()),
        )

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        names = {"reward": "return"}
        values = {names.get(name, name): getattr(self, name) for name in self.__slots__}
        rounded = {"score": round(self.score, 6), "return": round(self.reward, 6)}
        return {**values, **rounded, "options": list(self.options)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Record:
        """A record from what `to_json` gave."""
        return cls(
            task_id=str(values["task_id"]),
            seed=int(values["seed"]),
            task_type=str(values["task_type"]),
            success=bool(values["success"]),
            score=float(values["score"]),
            reward=float(values["return"]),
            steps=int(values["steps"]),
            tokens=int(values["tokens"]),
            invalid=int(values["invalid"]),
            subgoals=None if values["subgoals"] is None else int(values["subgoals"]),
            blueprint_valid=bool(values["blueprint_valid"]),
            options=tuple(values["options"]),
            error=values["error"],
            opening=str(values.get("opening", "")),
            cut=int(values.get("cut", 0)),
        )


def digest(parts: Iterable[str]) -> str:
    """The SHA-256 of texts in their order, in hexadecimal digits."""
    return hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest()


def opening_of(first: str, goal: str) -> str:
    """A short hash of what a task shows at first: the observation and the instruction."""
    return digest([first, goal])[:16]


def success_of(records: Sequence[Record]) -> dict[str, Any]:
    """Success of some episodes with its interval over tasks, and their score."""
    tasks = len({r.task_id for r in records})
    success = _mean(r.success for r in records)
    low, high = wilson(success * tasks, tasks)
    return {
        "episodes": len(records),
        "tasks": tasks,
        "success": round(success, 6),
        "ci95": [round(low, 6), round(high, 6)],
        "over": "tasks",
        "score": round(_mean(r.score for r in records), 6),
    }


def summarise(records: Sequence[Record]) -> dict[str, Any]:
    """What episodes were like.

    Returns:
        `tasks`, `score`, `steps` and `tokens_per_episode` (means), `invalid_actions` (share of
        commands), `cut_answers` (share of episodes with an answer that ended at the limit of its
        length); where there are blueprints also `subgoals` (mean a blueprint),
        `blueprint_valid` (share), `option_steps` (mean), `option_ends` (share by reason),
        `achieved` (share of the sub-goals begun that the environment understands),
        `sub_done_precision` (share of `<sub_done>`s that ended an achieved sub-goal) with their
        number `sub_dones`; where tasks have kinds, `by_type`. A share of nothing is None.
    """
    commands = sum(r.steps for r in records)
    found: dict[str, Any] = {
        "tasks": len({r.task_id for r in records}),
        "score": round(_mean(r.score for r in records), 6),
        "steps": round(_mean(r.steps for r in records), 3),
        "tokens_per_episode": round(_mean(r.tokens for r in records), 3),
        "invalid_actions": _share(sum(r.invalid for r in records), commands),
        "cut_answers": _share(sum(r.cut > 0 for r in records), len(records)),
    }
    planned = [r for r in records if r.subgoals is not None]
    if planned:
        options = [option for r in planned for option in r.options]
        ends = Counter(str(option["reason"]) for option in options)
        judged = [option for option in options if option["achieved"] is not None]
        said = [option for option in judged if option["reason"] == "done"]
        found |= {
            "subgoals": round(_mean(r.subgoals or 0 for r in planned), 3),
            "blueprint_valid": _share(sum(r.blueprint_valid for r in planned), len(planned)),
            "option_steps": round(_mean(o["steps"] for o in options), 3) if options else None,
            "option_ends": {k: _share(ends[k], len(options)) for k in sorted(ends)},
            "achieved": _share(sum(o["achieved"] for o in judged), len(judged)),
            "sub_done_precision": _share(sum(o["achieved"] for o in said), len(said)),
            "sub_dones": len(said),
        }
    kinds = sorted({r.task_type for r in records if r.task_type})
    if kinds:
        found["by_type"] = {
            kind: success_of([r for r in records if r.task_type == kind]) for kind in kinds
        }
    return found


def _mean(values: Iterable[float]) -> float:
    listed = [float(value) for value in values]
    return sum(listed) / len(listed) if listed else 0.0


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None
