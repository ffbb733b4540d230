"""What an evaluation was of: two figures may be compared where their manifests agree.

A manifest names the tasks in their order, what they showed (the data), how they were told (prompts,
memory), how answers were drawn, and the seeds, those of training apart from those of sampling.
Hashes are SHA-256 in hexadecimal digits.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

from himac_agents.agents.agent import Executor, HiMACAgent, Planner
from himac_agents.agents.expert import Expert
from himac_agents.evaluation.metrics import Record, digest
from himac_agents.prompts import Prompts
from himac_envs import __version__
from himac_envs.blueprint import SUB_DONE, Blueprint

#: A first observation, a later one, an instruction, a sub-goal and a command of each kind of text
#: that styles tell apart.
PROBES = (
    (
        "You are in the middle of a room. Looking quickly around you, you see a desk 1, and a "
        "shelf 2.\n\nYour task is to: put some mug on shelf.",
        "You arrive at desk 1. On the desk 1, you see a mug 1.",
        "put some mug on shelf.",
        "take mug 1 from desk 1",
        "go to desk 1",
    ),
    (
        "Instruction: [SEP] Find me a red mug, and price lower than 20.00 dollars [SEP] Search",
        "Back to Search [SEP] Page 1 (Total results: 1) [SEP] Next > [SEP] B0G0000001 [SEP] Red "
        "Mug [SEP] $9.99",
        "Find me a red mug, and price lower than 20.00 dollars",
        "find a red mug",
        "click[b0g0000001]",
    ),
    ("# # #\n# P #\n# # #", "# # #\n# P #\n# # #", "# # #\n# P #\n# # #", "go to (1, 1)", "up"),
)

#: What a hierarchical environment can be made with, beside its task.
HIERARCHY = ("max_subgoals", "subgoal_budget", "replans", "sub_done")


def prompts_hash(prompts: Prompts) -> str:
    """The hash of what a style writes and reads, tried on short texts of each environment.

    It changes with any word that a model reads, and not with where a style is defined.
    """
    found: list[str] = []
    for probe in PROBES:
        for ask in _questions(prompts, *probe):
            try:
                found.append(repr(ask()))
            except Exception as error:  # a style for one environment may not read another's texts
                found.append(type(error).__name__)
    return digest(found)


def _questions(
    prompts: Prompts, first: str, text: str, goal: str, subgoal: str, command: str
) -> list[Callable[[], Any]]:
    """Everything that a style is asked, about one kind of text."""
    info = {"step": 1, "admissible": [command, "look"], "goal": goal, "task_id": "0"}
    plan = Blueprint.of([subgoal, goal])
    return [
        lambda: prompts.plan(first, goal),
        lambda: prompts.segment(first, subgoal, [text], info),
        lambda: prompts.proceed(text, subgoal, info),
        lambda: prompts.play(first, goal, info),
        lambda: prompts.recall(first, goal, [(first, command)], text, info),
        lambda: prompts.observe(text, subgoal, info),
        lambda: prompts.draft(plan, first, goal),
        lambda: prompts.write_blueprint(plan),
        lambda: [prompts.write_command(c) for c in (command, SUB_DONE)],
        lambda: [prompts.phrase(c, info) for c in prompts.commands(subgoal, info)],
        lambda: prompts.read(f"<think>so</think><action>{command}</action>", [command]),
        lambda: prompts.read_plan(f"1. {subgoal}\n2. {goal}", first, goal).texts(),
    ]


def style_of(level: Planner | Executor | None) -> dict[str, Any] | None:
    """The prompts that a level reads; None where nobody reads any (an expert, no planner)."""
    if level is None or isinstance(level.policy, Expert):
        return None
    prompts = level.prompts
    settings: dict[str, Any] = dict(vars(prompts)) if hasattr(prompts, "__dict__") else {}
    if dataclasses.is_dataclass(prompts):
        settings = {f.name: getattr(prompts, f.name) for f in dataclasses.fields(prompts)}
    told = {name: _json(value) for name, value in settings.items()}
    return {"style": type(prompts).__name__, **told, "sha256": prompts_hash(prompts)}


def _json(value: Any) -> Any:
    """A setting as it is where JSON has it, else its kind: where it lies tells nothing."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError):
        return type(value).__name__


def manifest_of(
    agent: HiMACAgent,
    env: Any,
    task_ids: Sequence[str],
    records: Sequence[Record],
    *,
    temperature: float,
    seeds: Sequence[int],
    **further: Any,
) -> dict[str, Any]:
    """The manifest of an evaluation.

    Args:
        agent: Who played.
        env: One of the environments.
        task_ids: What was played, in order.
        records: The episodes.
        temperature: Of sampling.
        seeds: Of sampling.
        **further: More to be told, such as the split's name.

    Returns:
        JSON values. `data.sha256` is of the first observation and the instruction of each task, in
        order; None where an episode ended before it had any.
    """
    base = env.unwrapped
    task = getattr(base, "task", base)
    shown: dict[str, str] = {}
    for record in records:
        if record.opening:
            shown.setdefault(record.task_id, record.opening)
    known = all(task_id in shown for task_id in task_ids)
    executor, planner = agent.executor, agent.planner
    memory = executor.sees if planner is not None else executor.history
    return {
        "env": env.spec.id if env.spec is not None else type(base).__name__,
        **further,
        "tasks": len(task_ids),
        "task_ids_sha256": digest(task_ids),
        "data": {
            "name": str(getattr(task, "data_name", "")),
            "version": str(getattr(task, "data_version", "")),
            "sha256": digest(shown[task_id] for task_id in task_ids) if known else None,
        },
        "max_steps": getattr(task, "max_steps", None),
        "hierarchy": {n: getattr(base, n) for n in HIERARCHY if hasattr(base, n)} or None,
        "prompts": {"planner": style_of(planner), "executor": style_of(executor)},
        "history": "episode" if memory is None else memory,
        "keep_thoughts": executor.keep_thoughts,
        "max_tokens": {
            "planner": None if planner is None else _longest(planner),
            "executor": _longest(executor),
        },
        "admissible_only": executor.constrained,
        "temperature": temperature,
        "training_seeds": _training_seeds(agent),
        "sampling_seeds": list(seeds),
        "himac": __version__,
    }


def _longest(level: Planner | Executor) -> int | None:
    """The longest answer of a level in tokens; None for an expert, whose answers have no limit."""
    return None if isinstance(level.policy, Expert) else level.sampling.max_tokens


def _training_seeds(agent: HiMACAgent) -> dict[str, int | None]:
    planner = {} if agent.planner is None else {"planner": agent.planner.training_seed}
    return {**planner, "executor": agent.executor.training_seed}
