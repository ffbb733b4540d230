"""Models of Hugging Face, in a folder or by name: text or vision, whole or an adapter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from himac_agents.policies.causal import without_progress_bars
from himac_agents.policies.chat import ChatPolicy, Loading, Precision
from himac_agents.policies.lora import CONFIG, AdapterHost, Lora, base_of
from himac_agents.policies.published import folder_of
from himac_agents.policies.vision import VisionPolicy, load_eyes

__all__ = ["HFPolicy", "Loading", "load"]


class HFPolicy(ChatPolicy):
    """A model of Hugging Face that reads text; `HFPolicy.load` loads those that see, too."""

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        seed: int = 0,
        device: str | None = None,
        dtype: Precision = "auto",
        lora: Lora | None = None,
        gradient_checkpointing: bool = False,
        template_options: dict[str, Any] | None = None,
    ) -> ChatPolicy:
        """A policy from a folder or by name; see `Loading` for what is not said here.

        Args:
            path: A folder that `save_pretrained` wrote (a model or an adapter), or a model's name:
                one that `himac model get` knows, or a hub's.
            seed: Seeds a new adapter's weights.
            device: See `Loading`.
            dtype: See `Loading`.
            lora: See `Loading`; not needed for a saved adapter.
            gradient_checkpointing: See `Loading`.
            template_options: See `Loading`.

        Raises:
            FileNotFoundError: A folder was named and holds no model.
        """
        how = Loading(device, dtype, lora, gradient_checkpointing, dict(template_options or {}))
        return load(path, how, seed=seed)


def load(path: str | Path, how: Loading, *, seed: int = 0) -> ChatPolicy:
    """The policy in a folder, or a model by name: text or vision, whole or an adapter.

    Raises:
        FileNotFoundError: A folder was named and holds neither a model nor an adapter, or the
            adapter's base is not where it was.
    """
    path = folder_of(path)
    folder = Path(path)
    saved = (folder / CONFIG).is_file()
    if folder.is_dir() and not saved and not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no config.json: not a saved model")
    source = base_of(folder) if saved else str(path)
    if saved and Path(source).is_absolute() and not Path(source).is_dir():
        raise FileNotFoundError(
            f"{folder} is an adapter for the model in {source}, which no longer exists"
        )
    if Path(source).is_dir():
        source = str(Path(source).resolve())
    parts = _parts(source)
    if not saved and how.lora is None:
        # Rounding a whole model's weights would lose its steps: see `Loading.dtype`.
        return parts.policy(parts.model(source, how, torch.float32), how)
    precision = how.precision(how.where())
    host = AdapterHost.of(
        source,
        f"{how.where()}, sharded" if how.shard else how.where(),
        str(precision),
        lambda: parts.model(source, how, precision),
    )
    adapter = host.load(folder) if saved else host.new(how.lora or Lora(), seed)
    return parts.policy(host.model, how, host=host, adapter=adapter)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a model is made of: the class that loads it, the policy for it, what it reads with."""

    loader: Any
    kind: type[ChatPolicy]
    reader: Any

    def model(self, source: str, how: Loading, dtype: torch.dtype) -> Any:
        """Loads the weights."""
        with without_progress_bars():
            model = self.loader.from_pretrained(source, dtype=dtype).to(how.lies())
        if how.where() == "cpu":
            for parameter in model.parameters():
                # See `TinyPolicy.load`: a resumed run equals an uninterrupted one to the bit.
                parameter.data = parameter.data.clone()
            model.tie_weights()
        return model

    def policy(self, model: Any, how: Loading, **adapter: Any) -> ChatPolicy:
        """Puts model and reader together."""
        return self.kind(model, self.reader, loading=how, **adapter)


def _parts(source: str) -> _Parts:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    )

    config = type(AutoConfig.from_pretrained(source))
    if config in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and config not in MODEL_FOR_CAUSAL_LM_MAPPING:
        from transformers import AutoModelForImageTextToText

        return _Parts(AutoModelForImageTextToText, VisionPolicy, load_eyes(source))
    return _Parts(AutoModelForCausalLM, HFPolicy, AutoTokenizer.from_pretrained(source))
