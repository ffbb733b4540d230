"""``himac demos ENV``: an expert's demonstrations as chat conversations, for fine-tuning."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from himac_agents.cli.environment import AS_NAMED, EnvOptions, find_text_env
from himac_agents.training.progress import Display
from himac_envs import registry
from himac_envs.contract import expert_of


def run(
    env: Annotated[str, tyro.conf.Positional],
    episodes: int = 100,
    out: Path | None = None,
    expert: Literal["oracle", "explorer"] = "oracle",
    split: str = "train",
    prompt: str = "chat",
    history: int | None = None,
    noise: float = 0.0,
    plan_noise: float = 0.0,
    solved_only: bool = False,
    seed: int = 0,
    lanes: int = 128,
    overwrite: bool = False,
    environment: Annotated[EnvOptions, tyro.conf.arg(name="")] = AS_NAMED,
) -> int:
    """Write an expert's demonstrations as JSONL in chat format, at both levels.

    Each line is one conversation: {"messages": [...], "role": "planner" or "executor", ...}. TRL's
    SFTTrainer takes the file as it is, and so does `himac train --demo-file FILE`. With the noise,
    expert, prompt and seed of a training run, the file holds that run's own demonstrations.

    Args:
        env: An id (himac list shows them), a benchmark's name (alfworld, webshop, sokoban) or
            module:Id-v0.
        episodes: How many tasks to demonstrate, drawn from the split by the seed.
        out: The file to write (default: demos-ENV.jsonl).
        expert: "oracle" knows everything, "explorer" only what it has seen.
        split: The split to draw tasks from.
        prompt: The prompt style: chat, verl-agent, or, for tiny models, compact or compact-gather.
        history: On a flat environment, write one conversation for each step, with this many earlier
            steps in it (default: the whole episode is one conversation; verl-agent: 2).
        noise: Chance that a command is replaced by a random one; the expert then recovers.
        plan_noise: Chance that a blueprint has a sub-goal dropped, doubled or swapped.
        solved_only: Leave out episodes that did not solve their task.
        seed: Seed of the choice of tasks and of the expert's choices and mistakes.
        lanes: Environments that play at the same time.
        overwrite: Replace the file if there is one.
        environment: The environment's form and arguments.
    """
    from himac_agents import prompts
    from himac_agents.config import check_seeds, check_shares
    from himac_agents.rollouts.pool import EnvPool
    from himac_agents.training.demo_files import demos_of, describe_demos, write_demos
    from himac_agents.training.demonstrations import demonstrate, demonstration_order

    if episodes < 1:
        raise ValueError(f"episodes={episodes}: must be at least 1")
    check_seeds(seed)
    check_shares(noise=noise, plan_noise=plan_noise)
    kwargs = {"split": split, **environment.arguments()}
    played_env = find_text_env(env, kwargs, environment.flat)
    env, plays_flat = played_env.id, played_env.flat
    if played_env.kind == "browser":
        raise ValueError(
            f"{env} is too slow for demonstrations: HiMAC-WebShop-Flat-v0 is the same shop in text"
        )
    path = out or Path(f"demos-{registry.bare(env).replace('/', '-')}.jsonl")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists already: --overwrite replaces it")
    prompt = prompts.resolve(prompt)
    style = prompts.make(prompt, env)
    if history is None and isinstance(style, prompts.VerlAgentPrompts):
        history = style.memory
    pool = EnvPool(lambda: registry.make(env, **kwargs), lanes)
    shown_by = expert_of(pool[0], expert, env)
    if shown_by != expert:
        print(f"note: {env} has no {expert}; the {shown_by} demonstrates", file=sys.stderr)
    ids = pool.task_ids(split)
    chosen = [ids[i] for i in demonstration_order(len(ids), seed)[:episodes]]
    with Display(Console(stderr=True)).stage("demonstrations", len(chosen)) as tick:
        played = demonstrate(
            pool,
            chosen,
            prompts=style,
            expert=expert,
            noise=noise,
            plan_noise=plan_noise,
            seed=seed + 2,
            flat=plays_flat,
            history=history if plays_flat else None,
            on_episode=lambda _: tick(),
        )
    broken = [episode for episode in played if episode.error is not None]
    if len(broken) == len(played):
        raise ValueError(f"no episode could be played; the first one's error:\n{broken[0].error}")
    demos = demos_of(played, env, prompt)
    if solved_only:
        demos = [demo for demo in demos if demo.success]
    write_demos(path, demos)
    print(f"{path}: {describe_demos(demos)}")
    if broken:
        print(f"{len(broken)} episodes crashed and are left out")
    return 0
