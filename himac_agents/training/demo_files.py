"""Demonstrations as a file: one conversation a line, in the chat format that trainers read.

Each line is a JSON object. `messages` is a list of `{"role", "content"}` that ends with the
assistant, as TRL's SFTTrainer and others take it; the assistant's turns are the demonstration. The
rest says where the conversation comes from:

- `role`: "planner" or "executor"; on flat environments always "executor";
- `task_id`, `env`, `subgoal` ("" for planners and on flat environments), `episode` (a number);
- `success`: whether the episode solved its task; `steps`: steps of the task in this conversation;
- `style`: the style of the prompts, so that a model is not warmed up with another's words;
- `learn`: "all" of the assistant's turns are to be imitated, the "last" only, or the turns in this
  list (0 is the conversation's first). A turn that later ones are not shown whole, because it held
  a thought, has a line of its own.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, cast

from himac_agents import prompts
from himac_agents.agents.conversation import Context
from himac_agents.algorithms.methods import method_of
from himac_agents.config import TrainConfig
from himac_agents.files import write_atomically
from himac_agents.policies.base import Codec, Completion, Message, Role
from himac_agents.prompts import visible
from himac_agents.rollouts.types import Episode, Segment, Turn
from himac_envs.blueprint import SUB_DONE

_SPEAKERS = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Demo:
    """One demonstrated conversation; see the module's text for the fields."""

    messages: tuple[Message, ...]
    role: Role
    task_id: str
    env: str
    style: str
    subgoal: str = ""
    episode: int = 0
    success: bool = True
    steps: int = 0
    learn: Literal["all", "last"] | tuple[int, ...] = "all"

    def to_json(self) -> dict[str, Any]:
        """The line's content."""
        messages = [{"role": m.role, "content": m.text} for m in self.messages]
        rest = {name: getattr(self, name) for name in self.__slots__ if name != "messages"}
        return {"messages": messages, **rest}


def demos_of(episodes: Iterable[Episode], env: str, style: str) -> list[Demo]:
    """The conversations of episodes; those of crashed episodes are left out.

    Raises:
        ValueError: They hold pictures, which this format does not.
    """
    found: list[Demo] = []
    for number, episode in enumerate(episodes):
        if episode.error is not None:
            continue
        for segment in episode.segments:
            found += _demos_of_segment(segment, episode, number, env, style)
    return found


def _demos_of_segment(
    segment: Segment, episode: Episode, number: int, env: str, style: str
) -> list[Demo]:
    if segment.images:
        raise ValueError("demonstrations with pictures cannot be written as text: use image=False")
    spoken = [i for i, m in enumerate(segment.messages) if m.role == "assistant"]
    if len(spoken) != len(segment.turns):
        raise ValueError(f"{len(segment.turns)} turns, but {len(spoken)} of them in the messages")
    shared = tuple(k for k, turn in enumerate(segment.turns) if turn.sequence is None)
    found: list[Demo] = []
    for k, (at, turn) in enumerate(zip(spoken, segment.turns, strict=True)):
        whole = at == spoken[-1]
        if turn.sequence is None and k != shared[-1]:
            continue
        messages = (*segment.messages[:at], Message("assistant", turn.text))
        if turn.sequence is not None:
            learn: Literal["all", "last"] | tuple[int, ...] = "last"
        else:
            learn = "all" if len(shared) == len(segment.turns) else shared
        acted = segment.role == "executor"
        steps = sum(t.action != SUB_DONE for t in segment.turns) if acted and whole else 0
        if segment.option is not None and whole:
            steps = int(segment.option["steps"])
        found.append(
            Demo(
                messages=messages,
                role=segment.role,
                task_id=episode.request.task_id,
                env=env,
                style=style,
                subgoal=segment.subgoal,
                episode=number,
                success=episode.success,
                steps=steps,
                learn=learn,
            )
        )
    return found


def write_demos(path: Path, demos: Iterable[Demo]) -> None:
    """Writes a file of demonstrations, whole or not at all."""
    lines = [json.dumps(demo.to_json(), ensure_ascii=False) + "\n" for demo in demos]
    write_atomically(path, "".join(lines))


def read_demos(path: str | Path) -> list[Demo]:
    """Reads a file of demonstrations.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A line is not a demonstration; the message names the line and what it lacks.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file of demonstrations; `himac demos ENV --out {path}` writes one"
        )
    found = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    found.append(_demo(json.loads(line)))
                except (ValueError, TypeError, KeyError) as error:
                    raise ValueError(
                        f"{path}, line {number}: not a demonstration: {error}"
                    ) from error
    if not found:
        raise ValueError(f"{path} holds no demonstrations")
    return found


def demos_for(config: TrainConfig) -> list[Demo]:
    """The demonstrations that a run's settings name; none where they name no file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is broken, or its conversations are not those of this run's agent: they are
            in another style of prompts, or a level is missing or not wanted.
    """
    if not config.demo_file:
        return []
    demos = read_demos(config.demo_file)
    wanted = prompts.resolve(config.prompt, tiny=config.policy == "tiny")
    others = {demo.style for demo in demos} - {wanted, ""}
    if others:
        raise ValueError(
            f"{config.demo_file} holds demonstrations in the style {', '.join(sorted(others))}, "
            f"but the run's prompts are {wanted}: write them with `himac demos ... --prompt "
            f"{wanted}`, or train with --prompt {min(others)}"
        )
    levels = {demo.role for demo in demos}
    needed = {"planner", "executor"} if method_of(config).hierarchical else {"executor"}
    if levels != needed:
        raise ValueError(
            f"{config.demo_file} shows {' and '.join(sorted(levels))}; method={config.method} "
            f"needs {' and '.join(sorted(needed))}: see `himac demos --help`, option --flat"
        )
    return demos


def _demo(content: Any) -> Demo:
    if not isinstance(content, dict) or not isinstance(content.get("messages"), list):
        raise ValueError('an object with a list "messages" is needed')
    messages = []
    for message in content["messages"]:
        role, text = message["role"], message["content"]
        if role not in _SPEAKERS or not isinstance(text, str):
            raise ValueError(f"a message with role {role!r} and text is needed")
        messages.append(Message(role, text))
    if not messages or messages[-1].role != "assistant" or messages[0].role == "assistant":
        raise ValueError("a conversation must not begin with the assistant, and must end with it")
    if any(a.role == b.role == "assistant" for a, b in pairwise(messages)):
        raise ValueError("two answers in a row: a user message must be between them")
    if content.get("role") not in ("planner", "executor"):
        raise ValueError('"role" is planner or executor')
    learn, spoken = content.get("learn", "all"), [m.role for m in messages].count("assistant")
    if isinstance(learn, list) and all(type(k) is int and 0 <= k < spoken for k in learn):
        learn = tuple(learn)
    elif learn not in ("all", "last"):
        raise ValueError(f'"learn" is all, last or a list of turns, 0 to {spoken - 1}')
    return Demo(
        messages=tuple(messages),
        role=content["role"],
        task_id=str(content.get("task_id", "")),
        env=str(content.get("env", "")),
        style=str(content.get("style", "")),
        subgoal=str(content.get("subgoal", "")),
        episode=int(content.get("episode", 0)),
        success=bool(content.get("success", True)),
        steps=int(content.get("steps", 0)),
        learn=cast('Literal["all", "last"] | tuple[int, ...]', learn),
    )


def segments_of_demos(demos: Sequence[Demo], codec: Codec) -> list[Segment]:
    """Demonstrations as training sequences, in a model's tokens.

    The tokens are those that playing the demonstration would have given: the same pieces are
    encoded in the same order.
    """
    return [_segment(demo, codec) for demo in demos]


def _segment(demo: Demo, codec: Codec) -> Segment:
    opening = next(i for i, m in enumerate(demo.messages) if m.role == "assistant")
    context = Context(demo.role, demo.messages[:opening], codec)
    segment = Segment(demo.role, demo.episode, demo.subgoal, -1 if demo.role == "planner" else 0)
    last, spoken, start = len(demo.messages) - 1, 0, 0
    heard: list[Message] = []
    for place in range(opening, len(demo.messages)):
        message = demo.messages[place]
        if message.role != "assistant":
            heard.append(message)
            continue
        if heard:
            # As in the play: what a template opens before an answer is not shown of earlier ones.
            # A thought that still stands in one is to be read again.
            said = context.messages[-1].text
            before = context.drop_thought() if visible(said).strip() == said.strip() else None
            if before is not None and segment.turns and segment.turns[-1].start == start:
                segment.turns[-1].sequence = before
            context.hear(*heard)
            heard = []
        start = len(context.token_ids)
        ids = context.say(Completion(message.text))
        turn, spoken = spoken, spoken + 1
        if demo.learn == "all" or (place == last if demo.learn == "last" else turn in demo.learn):
            segment.turns.append(Turn(demo.role, start, ids, (), message.text, message.text))
    segment.token_ids, segment.messages = context.token_ids, context.messages
    return segment


def describe_demos(demos: Sequence[Demo]) -> str:
    """What a file holds, in one line."""
    roles = Counter(demo.role for demo in demos)
    episodes = {demo.episode: demo.success for demo in demos}
    solved = sum(episodes.values())
    parts = ", ".join(f"{count:,} of the {role}" for role, count in sorted(roles.items()))
    return f"{len(episodes):,} episodes, {solved:,} solved; {len(demos):,} conversations: {parts}"
