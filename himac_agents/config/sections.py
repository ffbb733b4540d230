"""The sections of a run's settings: each field once, with help, limits and what it changes."""

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
    """What is learned, and where."""

    method: str = setting("himac", "learning")
    """How it learns: "himac" is the paper's (its formulas are reconstructed), "himac-option" this
    project's; there are ablations of the paper's, credit by milestones ("beacon") and by graphs
    ("himac-graph"), flat agents ("grpo", "rloo", "gigpo", "hgpo", "crbc"), and what is registered
    from outside: see himac_agents.algorithms.methods."""
    env: str = ""
    """The hierarchical environment. Without one: that of flat_env's tasks, or ALFWorld's."""
    flat_env: str = ""
    """The same tasks without a hierarchy: for the flat methods and the flat baseline. Without one:
    the id that belongs to env ("X-v0" and "X-Flat-v0")."""
    env_kwargs: Pairs = setting({})
    """Further keyword arguments of both environments; a value "$HIMAC_DATA/..." reads the
    variable."""
    seed: int = setting(0, "sample", least=0, most=GREATEST_SEED)
    """Seed of everything: weights, demonstrations, task choice, sampling."""
    subgoal_budget: int = setting(0, least=0)
    """Steps after which the environment ends a sub-goal by itself; 0 leaves that to the
    executor."""
    replans: int = setting(0, least=0)
    """How often the planner is asked again once its last sub-goal has ended and the task is not
    solved. The further blueprints are part of the world; only "himac-joint" learns from them."""
    history: Literal["episode"] | int = setting("episode", least=0)
    """What a flat agent reads at each step: the "episode" so far as one conversation, or the
    instruction and its last so many steps (each step is then a training sequence of its own)."""


@section("start")
class PolicySettings:
    """The policy."""

    policy: str = "tiny"
    """What learns: "tiny" (built from scratch), "hf" (a local transformers model), or a kind that
    is registered from outside: see himac_agents.policies.kinds."""
    model: str = ""
    """Folder or name of the model (one of `himac model where`, or a hub's); policy = "hf" needs
    one."""
    share_parameters: bool = True
    """One model in both roles, as in the paper; false gives each role its own."""
    hidden: int = setting(64, least=1)
    """Width of the tiny model."""
    layers: int = setting(3, least=1)
    """Layers of the tiny model."""
    heads: int = setting(4, least=1)
    """Attention heads of the tiny model."""
    feedforward: int = setting(192, least=1)
    """Feed-forward width of the tiny model."""
    match: bool = False
    """The tiny model's queries and keys begin equal, so that equal words attend to each other from
    the first step: it learns to copy with fewer demonstrations."""
    constrained: bool = False
    """Commands are chosen among the admissible ones (in every arm alike), or written freely."""
    max_command_tokens: int = setting(16, least=1)
    """The longest command, in tokens."""
    max_blueprint_tokens: int = setting(64, least=1)
    """The longest blueprint, in tokens."""


@section("start")
class PromptSettings:
    """Prompts."""

    prompt: str = "auto"
    """Style: "compact" (few words), "compact-gather" (what matches the task is repeated behind each
    observation, not marked in it), "chat", "verl-agent" (that project's flat prompt), or "auto":
    compact for tiny models, chat for all others."""
    executor_history: Literal["segment", "episode"] = "segment"
    """What the executor remembers on a hierarchical environment: its sub-goal's "segment", which is
    the paper's mask, or the whole "episode"."""
    think: bool = False
    """Ask for reasoning in <think> tags before each answer (chat prompts)."""


@section("start")
class ModelSettings:
    """Models of Hugging Face (policy = "hf")."""

    lora_rank: int = setting(0, least=0)
    """Learn an adapter (LoRA) of this rank instead of the model's own weights; 0: the whole
    model."""
    lora_alpha: int = setting(32, above=0)
    """The adapter's update is scaled by lora_alpha / lora_rank."""
    lora_targets: tuple[str, ...] = ("all-linear",)
    """Modules that get an adapter: names, each of which must be found, or "all-linear" alone."""
    separate_adapters: bool = False
    """An adapter for the planner and one for the executor on one base model (needs lora_rank; sets
    share_parameters to false)."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """What is computed in: "float32", "bfloat16", or "auto" (bfloat16 on a GPU)."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them: slower, and much less memory."""
    shard: bool = setting(False, "speed")
    """Spread the model that learns, its gradients, moments and reference over the processes that a
    launcher started: each then holds its part. See docs/scaling.md."""
    keep_thoughts: bool = False
    """Whether the executor reads, at its next step, what it thought (<think>) at this one. False:
    as reasoning models are used; each step with a thought (or for which the chat template opens
    one) is then a training sequence of its own."""
    template_options: Pairs = setting({})
    """Arguments for the model's chat template, such as { enable_thinking = false }."""


@section("speed")
class RolloutSettings:
    """Who samples (policy = "hf"); see docs/scaling.md."""

    rollout: Literal["local", "vllm", "server"] = setting("local", "start")
    """Who writes the answers: the model that learns ("local"), vLLM in the same process ("vllm"),
    or vLLM servers by their addresses ("server"), with weights that are sent to them after each
    update."""
    servers: tuple[str, ...] = ()
    """With rollout = "server": addresses of servers that `himac serve` started; requests go to the
    least busy."""
    transfer: Literal["auto", "file", "nccl", "ipc"] = "auto"
    """How weights are sent: by a "file" that the servers read, from GPU to GPU ("nccl"), within one
    ("ipc"), or as the servers were started ("auto")."""
    sync_folder: str = ""
    """Where files of weights and adapters are written: a folder that the servers see, too. Without
    one: a folder of this machine's own."""
    sync_bound: float = setting(0.0, "record", least=0)
    """How far apart, in nats a token, the log-probabilities of servers and model may be after a
    sync, in the mean; beyond it the run stops. 0: 0.001 in float32, 0.15 in others."""
    sync_timeout: float = setting(30.0, above=0)
    """Seconds that a step of a sync may take; large models need more."""
    answer_timeout: float = setting(600.0, above=0)
    """Seconds until the answer of a server that lives is given up; one that is gone is found out
    about within half a minute."""
    sampler_correction: Literal["none", "token", "sequence"] = setting("none", "learning")
    """Whether what is learned from an answer is weighed by the ratio of the learning model's
    probability of it to the sampler's: of each "token", or of a "sequence" as a whole. For samplers
    that round differently (bfloat16)."""
    sampler_cap: float = setting(2.0, "learning", above=0)
    """Where that ratio is cut off."""


@section("start")
class WarmStartSettings:
    """Warm start: supervision on demonstrations."""

    demos: int = setting(500, least=0)
    """Demonstrated tasks of the training split."""
    demo_file: str = ""
    """A file of demonstrations (`himac demos`) to start from instead of making them: then `demos`,
    `expert` and the noise are without effect."""
    expert: Literal["explorer", "oracle"] = "explorer"
    """Who demonstrates: "explorer" searches honestly, "oracle" knows where everything is."""
    demo_noise: float = setting(0.1, least=0, most=1)
    """Chance that a demonstrated command is a random admissible one: the demonstrator errs."""
    plan_noise: float = setting(0.1, least=0, most=1)
    """Chance that a demonstrated blueprint has a sub-goal dropped, doubled or swapped."""
    demo_without: tuple[str, ...] = ()
    """Kinds of tasks that are not demonstrated, by the environment's names for them
    ("pick_two_obj_and_place" in ALFWorld): what learning has to find by itself."""
    warm_steps: int = setting(1500, least=0)
    """Optimiser steps of the warm start; 0 skips it."""
    flat_warm_steps: int = setting(0, least=0)
    """The same for a flat agent; 0: as many. One model is to be shown what planner and executor see
    together, where each of them is a model."""
    warm_lr: float = setting(3e-3, least=0)
    """Peak learning rate of the warm start, decayed to a tenth along a cosine."""
    warm_planner_repeats: int = setting(2, least=1)
    """How often a demonstrated blueprint is seen for each time that a sub-goal's execution is."""
    warm_planner_share: float = setting(1.0, least=0, most=1)
    """With separate parameters: the planner's supervised steps for each of the executor's. Its
    texts are few and short: at 1 it may learn them by heart, their mistakes included."""
    warm_tokens: int = setting(2048, least=1)
    """Padded tokens in a supervised step."""


@section("record")
class EvaluationSettings:
    """Evaluation."""

    eval_split: str = setting("test", "start")
    """The split that evaluation plays; training never does."""
    eval_episodes: int = setting(500, "sample", least=1)
    """Held-out tasks."""
    eval_every: int = setting(0, least=0)
    """Success on a small, fixed panel of the "valid" split is measured every so many iterations,
    and the best checkpoint by it is kept as RUN/best; 0: it is not."""
    panel_episodes: int = setting(32, least=1)
    """Tasks of that panel."""
    baselines: tuple[Baseline, ...] = ()
    """What is measured beside the result: "supervised" (the warm start trained on for the same CPU
    time), "grpo" (flat, as many environment steps), "demonstrator", "oracle"; of a hierarchy also
    one level with the oracle in the other's place: "oracle-planner", "oracle-executor";
    "temperature-0.4": the trained agent at that temperature."""


@section("record")
class HousekeepingSettings:
    """Housekeeping."""

    lanes: int = setting(128, "speed", least=1)
    """Environments that play at the same time."""
    threads: int = setting(0, "speed", least=0)
    """CPU threads of torch; 0: one for a tiny model, and for a larger one as many as this process
    has cores."""
    checkpoint_every: int = setting(5, least=1)
    """Iterations between checkpoints."""
    loggers: tuple[str, ...] = ("tensorboard",)
    """Who is told the metrics beside metrics.jsonl: "tensorboard", "wandb", "trackio", and
    registered loggers by name."""
    project: str = "himac"
    """What wandb and trackio file the run under."""
    note: str = ""
    """What a reader should know before comparing this run's figures."""
