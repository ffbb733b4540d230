"""The settings of who samples; see `himac_agents.config.sections` for the others."""

from __future__ import annotations

from typing import Literal

from himac_agents.config.setting import section, setting


@section
class RolloutSettings:
    """Who samples (policy = "hf"); see docs/scaling.md."""

    rollout: Literal["local", "vllm", "server"] = setting(
        "local",
        'Who writes the answers: the model that learns ("local"), vLLM in the same process '
        '("vllm"), or vLLM servers by their addresses ("server"), with weights that are sent to '
        "them after each update.",
        "start",
    )
    servers: tuple[str, ...] = setting(
        (),
        'With rollout = "server": addresses of servers that `himac serve` started; requests go to '
        "the least busy.",
        "speed",
    )
    transfer: Literal["auto", "file", "nccl", "ipc"] = setting(
        "auto",
        'How weights are sent: by a "file" that the servers read, from GPU to GPU ("nccl"), '
        'within one ("ipc"), or as the servers were started ("auto").',
        "speed",
    )
    sync_folder: str = setting(
        "",
        "Where files of weights and adapters are written: a folder that the servers see, too. "
        "Without one: a folder of this machine's own.",
        "speed",
    )
    sync_bound: float = setting(
        0.0,
        "How far apart, in nats a token, the log-probabilities of servers and model may be after "
        "a sync, in the mean; beyond it the run stops. 0: 0.001 in float32, 0.15 in others.",
        "record",
        least=0,
    )
    sync_timeout: float = setting(
        30.0,
        "Seconds that a step of a sync may take; large models need more.",
        "speed",
        above=0,
    )
    answer_timeout: float = setting(
        600.0,
        "Seconds until the answer of a server that lives is given up; one that is gone is found "
        "out about within half a minute.",
        "speed",
        above=0,
    )
    sampler_correction: Literal["none", "token", "sequence"] = setting(
        "none",
        "Whether what is learned from an answer is weighed by the ratio of the learning model's "
        'probability of it to the sampler\'s: of each "token", or of a "sequence" as a whole. For '
        "samplers that round differently (bfloat16).",
        "learning",
    )
    sampler_cap: float = setting(
        2.0,
        "Where that ratio is cut off.",
        "learning",
        above=0,
    )
