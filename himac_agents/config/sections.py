"""The sections of a run's settings: each field once, with its help, limits and effect."""

from __future__ import annotations

from typing import Literal

from himac_agents.config.pairs import Pairs
from himac_agents.config.setting import GREATEST_SEED, section, setting

Baseline = Literal[
    "supervised", "grpo", "demonstrator", "oracle", "oracle-planner", "oracle-executor",
    "temperature-0.4",
]  # fmt: skip


@section("start")
class TaskSettings:
    """Task and method."""

    method: str = setting("himac", "learning")
    """The method: "himac" is the paper's (its formulas are reconstructed), "himac-option" this
    project's. Others: ablations of the paper's, credit by milestones ("beacon"), by critics
    ("hiper") or by graphs ("himac-graph", "graph-beside-options"), flat methods ("grpo", "rloo",
    "gigpo", "hgpo", "crbc"), and registered methods of your own: see
    himac_agents.algorithms.methods."""
    env: str = ""
    """The hierarchical environment. Empty: the one with flat_env's tasks, or ALFWorld's."""
    flat_env: str = ""
    """The same tasks without a hierarchy, for flat methods and the flat baseline. Empty: the id
    that belongs to env ("X-v0" and "X-Flat-v0")."""
    env_kwargs: Pairs = setting({})
    """Further keyword arguments of both environments. In a value such as "$HIMAC_DATA/..." the
    environment variable is filled in."""
    seed: int = setting(0, "sample", least=0, most=GREATEST_SEED)
    """Seed of all that is random: weights, demonstrations, choice of tasks, sampling."""
    subgoal_budget: int = setting(0, least=0)
    """Steps after which the environment ends a sub-goal; 0: only the executor ends it."""
    replans: int = setting(0, least=0)
    """How many further blueprints the planner may write in an episode, each when the last sub-goal
    has ended and the task is not solved. Only "himac-joint" learns from them."""
    history: Literal["episode"] | int = setting("episode", least=0)
    """What a flat agent reads at each step: "episode", all of it so far as one conversation; or a
    number k, the instruction and the last k steps (each step is then its own training sequence)."""


@section("start")
class PolicySettings:
    """Policy."""

    policy: str = "tiny"
    """The kind of policy: "tiny" (a small model, trained from scratch), "hf" (a local transformers
    model), or a registered kind of your own: see himac_agents.policies.kinds."""
    model: str = ""
    """Folder or name of the model (one that `himac model where` lists, or one of the Hugging Face
    Hub); required with policy = "hf"."""
    share_parameters: bool = True
    """One model is both planner and executor, as in the paper; false: each has its own."""
    hidden: int = setting(64, least=1)
    """Width of the tiny model."""
    layers: int = setting(3, least=1)
    """Layers of the tiny model."""
    heads: int = setting(4, least=1)
    """Attention heads of the tiny model."""
    feedforward: int = setting(192, least=1)
    """Feed-forward width of the tiny model."""
    match: bool = False
    """Start the tiny model's queries and keys equal, so that equal words attend to each other from
    the first step and it learns to copy with fewer demonstrations."""
    constrained: bool = False
    """Constrained decoding: the agent can write only admissible commands (flat baselines too).
    False: it writes freely."""
    max_command_tokens: int = setting(16, least=1)
    """Most tokens of a command."""
    max_blueprint_tokens: int = setting(64, least=1)
    """Most tokens of a blueprint."""


@section("start")
class PromptSettings:
    """Prompts."""

    prompt: str = "auto"
    """Prompt style: "compact", "compact-gather", "chat", "verl-agent", or "auto" (compact for tiny
    models, chat for all others). "compact" has few words; "compact-gather" also repeats the words
    that match the task behind each observation, instead of marking them in it; "verl-agent" is that
    project's flat prompt."""
    executor_history: Literal["segment", "episode"] = "segment"
    """What the executor reads on a hierarchical environment: the "segment" of its sub-goal, as in
    the paper, or the whole "episode"."""
    think: bool = False
    """Ask for reasoning in <think> tags before each answer (chat style)."""


@section("start")
class ModelSettings:
    """Hugging Face models (policy = "hf")."""

    lora_rank: int = setting(0, least=0)
    """Train a LoRA adapter of this rank instead of the model's own weights; 0: train the whole
    model."""
    lora_alpha: int = setting(32, above=0)
    """The adapter's update is scaled by lora_alpha / lora_rank."""
    lora_targets: tuple[str, ...] = ("all-linear",)
    """Modules that get an adapter: their names (one that is not found is an error), or "all-linear"
    alone."""
    separate_adapters: bool = False
    """One adapter for the planner and one for the executor, on one base model (needs lora_rank;
    sets share_parameters to false)."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of computation: "float32", "bfloat16", or "auto" (bfloat16 on a GPU)."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass instead of keeping them: slower, with much less
    memory."""
    shard: bool = setting(False, "speed")
    """Shard the weights, gradients, optimiser states and reference model over the processes of the
    run (FSDP2). See docs/scaling.md."""
    keep_thoughts: bool = False
    """Show the executor its earlier thoughts (<think>) at later steps. False, as reasoning models
    are meant to be used: each step with a thought is then its own training sequence, and so is each
    step for which the chat template opens a thought."""
    template_options: Pairs = setting({})
    """Arguments for the model's chat template, such as { enable_thinking = false }."""


@section("speed")
class RolloutSettings:
    """Sampling (policy = "hf"); see docs/scaling.md."""

    rollout: Literal["local", "vllm", "server"] = setting("local", "start")
    """What samples the answers: the trained model itself ("local"), vLLM in the same process
    ("vllm"), or vLLM servers ("server"). vLLM gets the new weights after each update."""
    servers: tuple[str, ...] = ()
    """With rollout = "server": addresses of servers that `himac serve` started; each request goes
    to the least busy one."""
    transfer: Literal["auto", "file", "nccl", "ipc"] = "auto"
    """How weights are sent: through a "file" that the servers read, from GPU to GPU ("nccl"),
    within one GPU ("ipc"), or in the way that the servers were started for ("auto")."""
    sync_folder: str = ""
    """Folder for the files of weights and adapters; the servers must see it too. Empty: a folder on
    this machine."""
    sync_bound: float = setting(0.0, "record", least=0)
    """Largest mean difference, in nats per token, between the log-probabilities of server and model
    after a sync; beyond it the run stops. 0: 0.001 in float32, 0.15 otherwise."""
    sync_timeout: float = setting(30.0, above=0)
    """Seconds allowed for each step of a sync; large models need more."""
    answer_timeout: float = setting(600.0, above=0)
    """Seconds to wait for an answer of a server that is alive; a dead server is noticed within half
    a minute."""
    sampler_correction: Literal["none", "token", "sequence"] = setting("none", "learning")
    """Importance weights for a sampler that rounds differently (bfloat16): the ratio of the trained
    model's probability to the sampler's, for each "token" or for the whole "sequence"."""
    sampler_cap: float = setting(2.0, "learning", above=0)
    """Largest value of that ratio; above it is cut off."""


@section("start")
class WarmStartSettings:
    """Warm start: supervised learning on demonstrations."""

    demos: int = setting(500, least=0)
    """Number of tasks of the training split that are demonstrated."""
    demo_file: str = ""
    """Take the demonstrations from this file (`himac demos` writes one); `demos`, `expert`,
    `demo_noise` and `plan_noise` then have no effect."""
    expert: Literal["explorer", "oracle"] = "explorer"
    """Who demonstrates: "explorer" knows only what it has seen, "oracle" knows everything."""
    demo_noise: float = setting(0.1, least=0, most=1)
    """Chance that a demonstrated command is replaced by a random admissible one."""
    plan_noise: float = setting(0.1, least=0, most=1)
    """Chance that a demonstrated blueprint has a sub-goal dropped, doubled or swapped."""
    demo_without: tuple[str, ...] = ()
    """Kinds of tasks that are not demonstrated, by the environment's names
    ("pick_two_obj_and_place" in ALFWorld); reinforcement learning must find out how."""
    warm_steps: int = setting(1500, least=0)
    """Optimiser steps of the warm start; 0 skips it."""
    flat_warm_steps: int = setting(0, least=0)
    """The same for a flat agent; 0: as many as warm_steps. Give more where planner and executor are
    two models, since one flat model must then see what both of them see."""
    warm_lr: float = setting(3e-3, least=0)
    """Peak learning rate of the warm start, decayed to a tenth along a cosine."""
    warm_planner_repeats: int = setting(2, least=1)
    """How often each demonstrated blueprint is repeated for one pass over the executions."""
    warm_planner_share: float = setting(1.0, least=0, most=1)
    """With separate parameters: the planner's supervised steps as a share of the executor's. Its
    texts are few and short: at 1 it may memorise them, mistakes included."""
    warm_tokens: int = setting(2048, least=1)
    """Padded tokens in a batch of the warm start."""


@section("record")
class EvaluationSettings:
    """Evaluation."""

    eval_split: str = setting("test", "start")
    """The split to evaluate on; training never plays it."""
    eval_episodes: int = setting(500, "sample", least=1)
    """Number of held-out tasks to evaluate on."""
    eval_every: int = setting(0, least=0)
    """Iterations between evaluations on a small, fixed panel of "valid" tasks; 0: none. The
    checkpoint that does best there is kept as RUN/best."""
    panel_episodes: int = setting(32, least=1)
    """Number of tasks in that panel."""
    baselines: tuple[Baseline, ...] = ()
    """Baselines to evaluate too, such as "supervised", "grpo" or "demonstrator". "supervised":
    further supervised training of the warm start, for the same CPU time; "grpo": flat, with as many
    environment steps; "demonstrator" and "oracle": the experts; "temperature-0.4": the trained
    agent at that temperature; on a hierarchical environment also "oracle-planner" and
    "oracle-executor": the oracle in place of one level."""


@section("record")
class HousekeepingSettings:
    """Housekeeping."""

    lanes: int = setting(128, "speed", least=1)
    """Environments that play at the same time, in each process."""
    threads: int = setting(0, "speed", least=0)
    """CPU threads of torch; 0: one for a tiny model, else as many as this process has cores."""
    checkpoint_every: int = setting(5, least=1)
    """Iterations between checkpoints."""
    loggers: tuple[str, ...] = ("tensorboard",)
    """Where metrics go beside metrics.jsonl: "tensorboard", "wandb", "trackio", and registered
    loggers of your own."""
    project: str = "himac"
    """The project's name for wandb and trackio."""
    note: str = ""
    """What a reader should know before comparing this run's figures."""
