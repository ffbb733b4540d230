"""``himac demos ENV``: an expert's demonstrations as chat conversations, for fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from himac_envs import registry


def run(
    env: Annotated[str, tyro.conf.Positional],
    episodes: int = 100,
    out: Path | None = None,
    expert: Literal["oracle", "explorer"] = "oracle",
    split: str = "train",
    flat: bool = False,
    prompt: str = "chat",
    history: int | None = None,
    noise: float = 0.0,
    plan_noise: float = 0.0,
    solved_only: bool = False,
    seed: int = 0,
    data: str | None = None,
    max_steps: int | None = None,
    lanes: int = 128,
) -> int:
    """Write an expert's demonstrations as JSONL in chat format, at both levels.

    One line is one conversation: {"messages": [...], "role": "planner" or "executor", ...}. TRL's
    SFTTrainer takes the file as it is, and so does `himac train --demo-file FILE`. With the noise,
    expert, prompt and seed of a training run, the file holds what that run would demonstrate.

    Args:
        env: A registered id.
        episodes: How many tasks are demonstrated, drawn from the split by the seed.
        out: The file (default: demos-ENV.jsonl).
        expert: "oracle" knows where everything is; "explorer" searches as the agent has to.
        split: Which tasks.
        flat: Demonstrate the flat environment of the same tasks: no planner, no sub-goals.
        prompt: The style of prompts: chat, compact, compact-gather (both for tiny models) or
            verl-agent.
        history: On a flat environment, one conversation a step with so many earlier steps in it
            (default: the whole episode is one conversation; verl-agent: 2).
        noise: Chance that a command is a random one; the expert recovers from it.
        plan_noise: Chance that a blueprint has a sub-goal dropped, doubled or swapped.
        solved_only: Leave out episodes that did not solve their task.
        seed: Seeds the choice of tasks, the expert's choices and its mistakes.
        data: A folder of data, or "generated".
        max_steps: Commands after which an episode is truncated.
        lanes: Environments that play at the same time.
    """
    import gymnasium as gym

    from himac_agents import prompts
    from himac_agents.config import check_seeds, check_shares
    from himac_agents.rollouts.pool import EnvPool
    from himac_agents.training.demo_files import demos_of, describe_demos, write_demos
    from himac_agents.training.demonstrations import demonstrate, demonstration_order

    cards = registry.env_cards()
    if flat and env.endswith("-v0") and "-Flat-" not in env:
        env = env.removesuffix("-v0") + "-Flat-v0"
    if env not in cards or cards[env].kind not in ("hierarchical", "flat"):
        raise ValueError(f"no text environment {env!r}: `himac list` shows them")
    if episodes < 1:
        raise ValueError(f"episodes={episodes}: must be at least 1")
    check_seeds(seed)
    check_shares(noise=noise, plan_noise=plan_noise)
    plays_flat = cards[env].kind == "flat"
    prompt = prompts.resolve(prompt)
    style = prompts.make(prompt, env)
    if history is None and isinstance(style, prompts.VerlAgentPrompts):
        history = style.memory
    kwargs: dict[str, Any] = {"split": split}
    kwargs |= {k: v for k, v in (("data", data), ("max_steps", max_steps)) if v is not None}
    pool = EnvPool(lambda: gym.make(env, **kwargs), lanes)
    ids = pool.task_ids(split)
    played = demonstrate(
        pool,
        [ids[i] for i in demonstration_order(len(ids), seed)[:episodes]],
        prompts=style,
        expert=expert,
        noise=noise,
        plan_noise=plan_noise,
        seed=seed + 2,
        flat=plays_flat,
        history=history if plays_flat else None,
    )
    broken = [episode for episode in played if episode.error is not None]
    if len(broken) == len(played):
        raise ValueError(f"no episode could be played; the first one's error:\n{broken[0].error}")
    demos = demos_of(played, env, prompt)
    if solved_only:
        demos = [demo for demo in demos if demo.success]
    path = out or Path(f"demos-{env}.jsonl")
    write_demos(path, demos)
    print(f"{path}: {describe_demos(demos)}")
    if broken:
        print(f"{len(broken)} episodes crashed and are left out")
    return 0
