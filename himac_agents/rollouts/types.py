"""What rollouts are made of: requests in; episodes, segments and turns out.

A segment is one conversation (the planner's, or the executor's on one sub-goal) and is what a
training sequence is made of; its turns are the stretches that the policy wrote.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from himac_agents.policies.base import Image, Message, Role
from himac_envs.blueprint import Blueprint


@dataclass(frozen=True, slots=True)
class EpisodeRequest:
    """One episode to be played.

    Attributes:
        task_id: The environment's task.
        group: Episodes that are compared with each other share this number.
        number: Tells the episode from others of the same task; its noise depends on it.
        blueprint: Where given, the planner is not asked: this blueprint is executed.
    """

    task_id: str
    group: int = 0
    number: int = 0
    blueprint: Blueprint | None = None


@dataclass(slots=True)
class Turn:
    """What a policy wrote at one decision.

    Attributes:
        role: The level that wrote it.
        start: Number of tokens before it; see `Segment.prompt_ids`.
        output_ids: The ids written, end token included.
        old_logprobs: Their log-probabilities when sampled.
        text: The answer as text.
        action: What the environment was sent.
        reward: What the environment paid for it.
        invalid: Whether the environment did not understand it.
        cut: Whether it ended at the limit of its length, not by itself.
        allowed: For each output id what it was drawn from; empty where any id was allowed.
        anchor: The observation that it answered (GiGPO compares turns with the same one).
        state: The key of the task's state that it answered (`TaskEnv.state_key`), and where a
            budget ends sub-goals of the steps left in this one; "" where no method asked for it.
        lines: For each output id of a blueprint the place of the sub-goal that it writes, -1 for
            none; empty where that was not asked for, or lines and sub-goals do not match.
        advantage: What it is to be learned with: written once, by the method's credit function.
        token_advantages: The same for each output id, where a method tells them apart; empty: each
            has `advantage`, which then is the whole turn's.
        value: What a critic said of the state it was written in, where a method has one.
        target: What it is to say of it.
        observation: What the environment answered.
        frame: What the environment then showed, where it shows pictures (see `traces.picture`).
        written: Tokens written, where a remote model counted them; None: `output_ids`.
        sequence: The conversation as it stood when this was written, this turn included, where it
            was rewritten afterwards (a thought was dropped): such a turn is a training sequence of
            its own. None: the segment's `token_ids`.
        images: How many pictures had been shown.
    """

    role: Role
    start: int
    output_ids: tuple[int, ...]
    old_logprobs: tuple[float, ...]
    text: str
    action: str
    reward: float = 0.0
    invalid: bool = False
    allowed: tuple[tuple[int, ...], ...] = ()
    anchor: str = ""
    state: str = ""
    lines: tuple[int, ...] = ()
    advantage: float | None = None
    token_advantages: tuple[float, ...] = ()
    value: float | None = None
    target: float | None = None
    observation: str = ""
    frame: Any = None
    written: int | None = None
    sequence: list[int] | None = field(default=None, repr=False)
    images: int = 0
    cut: bool = False

    @property
    def tokens(self) -> int:
        """Tokens that the policy wrote."""
        return len(self.output_ids) if self.written is None else self.written

    @property
    def teaches(self) -> bool:
        """Whether any of it has an advantage other than 0."""
        return bool(self.advantage) or any(self.token_advantages)


@dataclass(slots=True)
class Segment:
    """One conversation: the planner's, the executor's on one sub-goal, or a flat agent's.

    A flat agent with a short memory begins a new one at each step.

    Attributes:
        role: The level.
        group: The episode's group.
        subgoal: The sub-goal ("" for the planner and for flat agents).
        index: Its place in the blueprint; -1 for the planner.
        token_ids: The whole conversation.
        messages: The same as text.
        turns: What the policy wrote of it.
        option: The environment's record of the option, once it has ended.
        temperature: The softmax temperature the turns were sampled at.
        images: The pictures that were shown in it, in order.
        kept: Names of its training sequences, where another trainer keeps them.
    """

    role: Role
    group: int
    subgoal: str = ""
    index: int = -1
    token_ids: list[int] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    option: dict[str, Any] | None = None
    temperature: float = 1.0
    images: list[Image] = field(default_factory=list, repr=False)
    kept: list[str] = field(default_factory=list)

    def ids_of(self, turn: Turn) -> list[int]:
        """The conversation as it stood when a turn of it was written, this turn included."""
        return self.token_ids if turn.sequence is None else turn.sequence

    def prompt_ids(self, turn: Turn) -> tuple[int, ...]:
        """The ids that the policy had read when it wrote a turn of this conversation."""
        return tuple(self.ids_of(turn)[: turn.start])


@dataclass(slots=True)
class Episode:
    """One episode as it was played.

    Attributes:
        request: What was asked for.
        segments: The conversations, in order.
        blueprint: The blueprint executed (None on flat environments).
        blueprint_valid: Whether the planner's text could be parsed.
        success: Whether the task was solved.
        score: The environment's progress measure in [0, 1] at the end.
        reward: The sum of rewards.
        steps: Steps of the task (`<sub_done>` and blueprints cost none).
        options: The environment's records of the sub-goals.
        goal: What was asked for, in words.
        first: The first observation.
        frame: The first picture, where the environment shows any.
        transcript: (action, observation) pairs, for reports; only if asked for.
        offers: Every command that was admissible at some step; only with a transcript.
        task_type: The kind of task, where the environment tells it (ALFWorld's six types, say).
        error: Why the episode was cut off: the environment's traceback, or a remote model's last
            error. Such an episode carries no loss.
    """

    request: EpisodeRequest
    segments: list[Segment] = field(default_factory=list)
    blueprint: Blueprint | None = None
    blueprint_valid: bool = True
    success: bool = False
    score: float = 0.0
    reward: float = 0.0
    steps: int = 0
    goal: str = ""
    first: str = ""
    frame: Any = None
    options: list[dict[str, Any]] = field(default_factory=list)
    transcript: list[tuple[str, str]] = field(default_factory=list)
    offers: set[str] = field(default_factory=set)
    task_type: str = ""
    error: str | None = None

    def turns(self) -> Iterator[Turn]:
        """Every turn of every segment."""
        for segment in self.segments:
            yield from segment.turns

    @property
    def tokens(self) -> int:
        """Tokens that policies wrote in this episode."""
        return sum(turn.tokens for turn in self.turns())
