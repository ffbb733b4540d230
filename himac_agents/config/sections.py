"""The sections of a run's settings: each field once, with help, limits and what it changes."""

from __future__ import annotations

from typing import Literal

from himac_agents.config.pairs import Pairs
from himac_agents.config.setting import GREATEST_SEED, section, setting

Baseline = Literal[
    "supervised", "grpo", "demonstrator", "oracle", "oracle-planner", "oracle-executor",
    "temperature-0.4",
]  # fmt: skip


@section
class TaskSettings:
    """What is learned, and where."""

    method: str = setting(
        "himac",
        '"himac" is the paper\'s (its formulas are reconstructed), "himac-option" this '
        "project's; there are ablations of the paper's, credit by milestones (\"beacon\") and by "
        'graphs ("himac-graph"), flat agents ("grpo", "rloo", "gigpo", "hgpo", "crbc"), '
        "and what is registered from outside: see himac_agents.algorithms.methods.",
        "learning",
    )
    env: str = setting(
        "",
        "The hierarchical environment. Without one: that of flat_env's tasks, or ALFWorld's.",
        "start",
    )
    flat_env: str = setting(
        "",
        "The same tasks without a hierarchy: for the flat methods and the flat baseline. Without "
        'one: the id that belongs to env ("X-v0" and "X-Flat-v0").',
        "start",
    )
    env_kwargs: Pairs = setting(
        {},
        'Further keyword arguments of both environments; a value "$HIMAC_DATA/..." reads the '
        "variable.",
        "start",
    )
    seed: int = setting(
        0,
        "Seed of everything: weights, demonstrations, task choice, sampling.",
        "sample",
        least=0,
        most=GREATEST_SEED,
    )
    subgoal_budget: int = setting(
        0,
        "Steps after which the environment ends a sub-goal by itself; 0 leaves that to the "
        "executor.",
        "start",
        least=0,
    )
    replans: int = setting(
        0,
        "How often the planner is asked again once its last sub-goal has ended and the task "
        'is not solved. The further blueprints are part of the world; only "himac-joint" '
        "learns from them.",
        "start",
        least=0,
    )
    history: Literal["episode"] | int = setting(
        "episode",
        'What a flat agent reads at each step: the "episode" so far as one conversation, or '
        "the instruction and its last so many steps (each step is then a training sequence of "
        "its own).",
        "start",
        least=0,
    )


@section
class PolicySettings:
    """The policy."""

    policy: str = setting(
        "tiny",
        '"tiny" (built from scratch), "hf" (a local transformers model), or a kind that is '
        "registered from outside: see himac_agents.policies.kinds.",
        "start",
    )
    model: str = setting(
        "",
        'Folder or name of the model (one of `himac model where`, or a hub\'s); policy = "hf" '
        "needs one.",
        "start",
    )
    share_parameters: bool = setting(
        True,
        "One model in both roles, as in the paper; false gives each role its own.",
        "start",
    )
    hidden: int = setting(64, "Width of the tiny model.", "start", least=1)
    layers: int = setting(3, "Layers of the tiny model.", "start", least=1)
    heads: int = setting(4, "Attention heads of the tiny model.", "start", least=1)
    feedforward: int = setting(192, "Feed-forward width of the tiny model.", "start", least=1)
    match: bool = setting(
        False,
        "The tiny model's queries and keys begin equal, so that equal words attend to each "
        "other from the first step: it learns to copy with fewer demonstrations.",
        "start",
    )
    constrained: bool = setting(
        False,
        "Commands are chosen among the admissible ones (in every arm alike), or written freely.",
        "start",
    )
    max_command_tokens: int = setting(16, "The longest command, in tokens.", "start", least=1)
    max_blueprint_tokens: int = setting(64, "The longest blueprint, in tokens.", "start", least=1)


@section
class PromptSettings:
    """Prompts."""

    prompt: str = setting(
        "auto",
        'Style: "compact" (few words), "compact-gather" (what matches the task is repeated '
        'behind each observation, not marked in it), "chat", "verl-agent" (that project\'s '
        'flat prompt), or "auto": compact for tiny models, chat for all others.',
        "start",
    )
    executor_history: Literal["segment", "episode"] = setting(
        "segment",
        'What the executor remembers on a hierarchical environment: its sub-goal\'s "segment", '
        'which is the paper\'s mask, or the whole "episode".',
        "start",
    )
    think: bool = setting(
        False,
        "Ask for reasoning in <think> tags before each answer (chat prompts).",
        "start",
    )


@section
class ModelSettings:
    """Models of Hugging Face (policy = "hf")."""

    lora_rank: int = setting(
        0,
        "Learn an adapter (LoRA) of this rank instead of the model's own weights; 0: the "
        "whole model.",
        "start",
        least=0,
    )
    lora_alpha: int = setting(
        32,
        "The adapter's update is scaled by lora_alpha / lora_rank.",
        "start",
        above=0,
    )
    lora_targets: tuple[str, ...] = setting(
        ("all-linear",),
        'Modules that get an adapter: names, each of which must be found, or "all-linear" alone.',
        "start",
    )
    separate_adapters: bool = setting(
        False,
        "An adapter for the planner and one for the executor on one base model (needs "
        "lora_rank; sets share_parameters to false).",
        "start",
    )
    dtype: Literal["auto", "float32", "bfloat16"] = setting(
        "auto",
        'What is computed in: "float32", "bfloat16", or "auto" (bfloat16 on a GPU).',
        "start",
    )
    gradient_checkpointing: bool = setting(
        False,
        "Compute activations twice instead of keeping them: slower, and much less memory.",
        "start",
    )
    shard: bool = setting(
        False,
        "Spread the model that learns, its gradients, moments and reference over the processes "
        "that a launcher started: each then holds its part. See docs/scaling.md.",
        "speed",
    )
    keep_thoughts: bool = setting(
        False,
        "Whether the executor reads, at its next step, what it thought (<think>) at this one. "
        "False: as reasoning models are used; each step with a thought (or for which the chat "
        "template opens one) is then a training sequence of its own.",
        "start",
    )
    template_options: Pairs = setting(
        {},
        "Arguments for the model's chat template, such as { enable_thinking = false }.",
        "start",
    )


@section
class WarmStartSettings:
    """Warm start: supervision on demonstrations."""

    demos: int = setting(500, "Demonstrated tasks of the training split.", "start", least=0)
    demo_file: str = setting(
        "",
        "A file of demonstrations (`himac demos`) to start from instead of making them: then "
        "`demos`, `expert` and the noise are without effect.",
        "start",
    )
    expert: Literal["explorer", "oracle"] = setting(
        "explorer",
        'Who demonstrates: "explorer" searches honestly, "oracle" knows where everything is.',
        "start",
    )
    demo_noise: float = setting(
        0.1,
        "Chance that a demonstrated command is a random admissible one: the demonstrator errs.",
        "start",
        least=0,
        most=1,
    )
    plan_noise: float = setting(
        0.1,
        "Chance that a demonstrated blueprint has a sub-goal dropped, doubled or swapped.",
        "start",
        least=0,
        most=1,
    )
    demo_without: tuple[str, ...] = setting(
        (),
        "Kinds of tasks that are not demonstrated, by the environment's names for them "
        '("pick_two_obj_and_place" in ALFWorld): what learning has to find by itself.',
        "start",
    )
    warm_steps: int = setting(
        1500,
        "Optimiser steps of the warm start; 0 skips it.",
        "start",
        least=0,
    )
    flat_warm_steps: int = setting(
        0,
        "The same for a flat agent; 0: as many. One model is to be shown what planner and "
        "executor see together, where each of them is a model.",
        "start",
        least=0,
    )
    warm_lr: float = setting(
        3e-3,
        "Peak learning rate of the warm start, decayed to a tenth along a cosine.",
        "start",
        least=0,
    )
    warm_planner_repeats: int = setting(
        2,
        "How often a demonstrated blueprint is seen for each time that a sub-goal's execution is.",
        "start",
        least=1,
    )
    warm_planner_share: float = setting(
        1.0,
        "With separate parameters: the planner's supervised steps for each of the executor's. "
        "Its texts are few and short: at 1 it may learn them by heart, their mistakes "
        "included.",
        "start",
        least=0,
        most=1,
    )
    warm_tokens: int = setting(2048, "Padded tokens in a supervised step.", "start", least=1)


@section
class EvaluationSettings:
    """Evaluation."""

    eval_split: str = setting(
        "test",
        "The split that evaluation plays; training never does.",
        "start",
    )
    eval_episodes: int = setting(500, "Held-out tasks.", "sample", least=1)
    eval_every: int = setting(
        0,
        'Success on a small, fixed panel of the "valid" split is measured every so many '
        "iterations, and the best checkpoint by it is kept as RUN/best; 0: it is not.",
        "record",
        least=0,
    )
    panel_episodes: int = setting(32, "Tasks of that panel.", "record", least=1)
    baselines: tuple[Baseline, ...] = setting(
        (),
        'What is measured beside the result: "supervised" (the warm start trained on for the '
        'same CPU time), "grpo" (flat, as many environment steps), "demonstrator", "oracle"; of '
        'a hierarchy also one level with the oracle in the other\'s place: "oracle-planner", '
        '"oracle-executor"; "temperature-0.4": the trained agent at that temperature.',
        "record",
    )


@section
class HousekeepingSettings:
    """Housekeeping."""

    lanes: int = setting(128, "Environments that play at the same time.", "speed", least=1)
    threads: int = setting(
        0,
        "CPU threads of torch; 0: one for a tiny model, and for a larger one as many as this "
        "process has cores.",
        "speed",
        least=0,
    )
    checkpoint_every: int = setting(5, "Iterations between checkpoints.", "record", least=1)
    loggers: tuple[str, ...] = setting(
        ("tensorboard",),
        'Who is told the metrics beside metrics.jsonl: "tensorboard", "wandb", "trackio", and '
        "registered loggers by name.",
        "record",
    )
    project: str = setting("himac", "What wandb and trackio file the run under.", "record")
    note: str = setting(
        "",
        "What a reader should know before comparing this run's figures.",
        "record",
    )
