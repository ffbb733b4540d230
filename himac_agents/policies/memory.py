"""How much memory a run's models need in each process: reckoned before anything of them is read.

Of P parameters that learn as a whole: weights, gradients and AdamW's two moments, in float32, are
16 P bytes; the reference of a KL penalty is 4 P more, and what is computed in bfloat16 is cast from
them (2 P). Sharded over n processes (`himac_agents.policies.sharding`) each holds the n-th part and
gathers for a moment: a layer and the next while it learns, with one layer's gradients; all weights,
in the precision that is computed in, while it plays. Under adapters the base is one frozen copy, in
that precision, and only the adapters have gradients and moments.

All that is what tensors take, and a test counts them. Activations are an estimate: what a decoder
of this kind keeps for a pass of `micro_tokens` tokens. The cache of what is played grows with the
conversations, so it is told by the token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from himac_agents.config import TrainConfig
from himac_agents.policies.kinds import shards_models
from himac_agents.policies.sharding import layers_of

_FLOAT = 4
#: Of the tokens of a pass, so many are learned from and have logits.
_LEARNED = 0.25


@dataclass(frozen=True, slots=True)
class Shape:
    """What is counted of a model.

    Attributes:
        parameters: Its numbers.
        layer: Those of its largest layer.
        rest: Those outside layers: embeddings, the output layer.
        layers: How many layers.
        adapter: Numbers of one adapter; 0 where the model learns as a whole.
        hidden: Width of a hidden state.
        inner: Width within a feed-forward part.
        keys: Width of a layer's keys, and of its values.
        vocabulary: Logits of a token.
    """

    parameters: int
    layer: int
    rest: int
    layers: int
    adapter: int
    hidden: int
    inner: int
    keys: int
    vocabulary: int


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes in one process.

    Attributes:
        weights: Of all that lies there: what learns, a frozen base, a reference.
        gradients: Of what learns.
        moments: AdamW's.
        gathered: What a sharded model gathers to learn.
        played: What it gathers to play, and casts of weights to what is computed in.
        activations: What a pass keeps for its gradient, logits included: an estimate.
        cache: Of one token of a conversation that is played.
    """

    weights: float
    gradients: float
    moments: float
    gathered: float
    played: float
    activations: float
    cache: float

    @property
    def most(self) -> float:
        """The larger of what learning and playing take, without the cache."""
        learning = self.gradients + self.gathered + self.activations
        return self.weights + self.moments + max(learning, self.played)


def shape_of(config: TrainConfig) -> Shape:
    """What is counted of a run's model, from its settings (`config.json`) alone.

    Raises:
        OSError: They cannot be read.
        ValueError: They are of no model that transformers knows.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    from himac_agents.policies.published import folder_of

    known = AutoConfig.from_pretrained(folder_of(config.model))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(known)
    return counted(model, config)


def counted(model: Any, config: TrainConfig) -> Shape:
    """What is counted of a model."""
    known = model.config.get_text_config()
    total = sum(p.numel() for p in model.parameters())
    sizes = [sum(p.numel() for p in layer.parameters()) for layer in layers_of(model)]
    heads = int(known.num_attention_heads)
    width = int(getattr(known, "head_dim", None) or known.hidden_size // heads)
    return Shape(
        total,
        max(sizes),
        total - sum(sizes),
        len(sizes),
        _adapter(model, config) if config.lora_rank else 0,
        int(known.hidden_size),
        int(getattr(known, "intermediate_size", 4 * known.hidden_size)),
        width * int(getattr(known, "num_key_value_heads", heads)),
        int(known.vocab_size),
    )


def _adapter(model: Any, config: TrainConfig) -> int:
    """The numbers of an adapter: two thin matrices beside each that it changes."""
    ends = tuple(f".{name}" for name in config.lora_targets)
    linear = config.lora_targets == ("all-linear",)
    found = 0
    for name, module in model.named_modules():
        if not isinstance(module, (torch.nn.Linear, torch.nn.Embedding)):
            continue
        head = module is model.get_output_embeddings() or isinstance(module, torch.nn.Embedding)
        if (linear and not head) or (not linear and f".{name}".endswith(ends)):
            found += config.lora_rank * sum(module.weight.shape)
    return found


def need(
    shape: Shape, config: TrainConfig, processes: int, *, computes: int, policies: int = 1
) -> Need:
    """Bytes in each process.

    Args:
        shape: The model.
        config: The settings.
        processes: Over how many it is sharded; 1: it lies whole in each.
        computes: Bytes of a number in the precision that is computed in.
        policies: How many models, or adapters on one, learn.
    """
    lora = shape.adapter > 0
    learn = policies * (shape.adapter if lora else shape.parameters)
    # Frozen: the base under adapters; without a warm start that is the reference, too.
    held = _FLOAT * (learn + (learn if config.kl else 0))
    frozen = computes * shape.parameters if lora else 0
    gathered, played = 0.0, 0.0
    cast = 0 if lora or computes == _FLOAT else computes * shape.parameters
    if processes > 1:
        size = computes if lora else min(_FLOAT, computes)
        largest = max(shape.layer, shape.rest)
        gathered = size * (2 * shape.layer + shape.rest)
        gathered += 0 if lora else (size + _FLOAT) * largest
        models = 1 if lora else policies
        played = models * size * shape.parameters + (_FLOAT * learn if lora else 0)
        if config.rollout != "local":
            played = 0.0
    else:
        gathered = played = float(cast)
    # The warm start's batch is one pass of each process.
    tokens = max(config.micro_tokens, config.warm_steps and config.warm_tokens // processes)
    return Need(
        (held + frozen) / processes,
        _FLOAT * learn / processes,
        2 * _FLOAT * learn / processes,
        gathered,
        played,
        activations(shape, tokens, computes, again=config.gradient_checkpointing),
        2 * computes * shape.keys * shape.layers,
    )


def activations(shape: Shape, tokens: int, computes: int, *, again: bool) -> float:
    """Bytes that a pass of so many tokens keeps for its gradient: an estimate.

    Args:
        shape: The model.
        tokens: Padded tokens.
        computes: Bytes of a number.
        again: Whether layers compute theirs twice instead of keeping them.
    """
    # What attention and the feed-forward part read and make (counted in Qwen2); below float32, two
    # norms keep their input and what they make of it in that, too.
    layer = computes * (7 * shape.hidden + 6 * shape.keys + 4 * shape.inner)
    layer += 0 if computes == _FLOAT else 4 * _FLOAT * shape.hidden
    kept = layer + shape.layers * _FLOAT * shape.hidden if again else shape.layers * layer
    logits = 2 * computes * shape.vocabulary * _LEARNED
    return tokens * (kept + logits)


def told(config: TrainConfig, processes: int, policies: int) -> str:
    """A line for the console, before a model of Hugging Face is read; "" where there is none.

    Args:
        config: The settings as they are run.
        processes: How many there are.
        policies: How many models, or adapters on one, learn.
    """
    if config.policy != "hf":
        return ""
    try:
        shape = shape_of(config)
    except (OSError, ValueError, KeyError, AttributeError):
        return ""  # whatever is wrong is told when the model is read
    device = "cuda" if torch.cuda.is_available() else "cpu"
    wide = config.dtype == "float32" or (config.dtype == "auto" and device == "cpu")
    how: dict[str, Any] = {"computes": 4 if wide else 2, "policies": policies}
    whole = need(shape, config, 1, **how)
    sharded = shards_models(config)
    over = processes if sharded else max(processes, 4)
    parts = need(shape, config, over, **how)
    here = parts if sharded else whole
    beside = f"{amount(whole.most)} without --shard" if sharded else (
        f"--shard over {over} processes takes {amount(parts.most)} in each"
    )  # fmt: skip
    line = (
        f"memory: this needs about {amount(here.most)} a process ({beside}), and "
        f"{here.cache / 1024:,.0f} KiB for each token of the conversations that are played"
    )
    if device == "cuda":
        room = torch.cuda.get_device_properties(0).total_memory
        line += f"; the GPU has {amount(room)}"
    return line


def amount(size: float) -> str:
    """Bytes in words."""
    return f"{size / 1e9:,.0f} GB" if size >= 1e10 else f"{size / 1e9:.2g} GB"
