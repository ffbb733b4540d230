"""Low-rank adapters (LoRA): many policies on one base model, of which only adapters are saved.

A base model is loaded once in a process. Planner and executor with adapters of their own, the
frozen adapter that a KL penalty holds on to, and a baseline that is trained beside a run are each a
few matrices on the same base, switched on for as long as they are used.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from himac_agents.distributed import team
from himac_agents.policies.sharding import Shards, gathered
from himac_envs.errors import MissingDependencyError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True, slots=True)
class Lora:
    """The shape of an adapter.

    Attributes:
        rank: Rank of the update of each matrix.
        alpha: The update is scaled by alpha / rank.
        targets: Names of the modules that get one, whole ("model.layers.0.self_attn.q_proj") or
            their last parts ("q_proj"); "all-linear" alone: every linear layer but the output
            layer.
    """

    rank: int = 16
    alpha: int = 32
    targets: tuple[str, ...] = ("all-linear",)


class AdapterHost:
    """A base model and the adapters on it; get one with `AdapterHost.of`.

    Args:
        model: The base model; its own weights are frozen.
        source: Its name or folder, as it is written into saved adapters.
    """

    _open: ClassVar[WeakValueDictionary[tuple[str, str, str], AdapterHost]] = WeakValueDictionary()

    def __init__(self, model: Any, source: str) -> None:
        self.base, self.source = model, source
        self.model: Any = None
        #: Where the model is sharded over several processes: how.
        self.shards: Shards | None = None
        self._made = 0
        self._used: str | None = None
        self._whole = False

    @classmethod
    def of(cls, source: str, device: str, dtype: str, load: Callable[[], Any]) -> AdapterHost:
        """The host of a base model; `load` is called where the process has none yet."""
        key = (source, device, dtype)
        host = cls._open.get(key)
        if host is None:
            host = cls._open[key] = cls(load(), source)
        return host

    def new(self, lora: Lora, seed: int) -> str:
        """A fresh adapter, which changes nothing yet; returns its name.

        Raises:
            ValueError: A target is no module's name, or a module that peft gives no adapter to.
        """
        from_peft = _peft()
        self._insist_on(lora.targets)
        targets = lora.targets[0] if lora.targets == ("all-linear",) else list(lora.targets)
        settings = from_peft.LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=0.0,
            target_modules=targets,
            task_type="CAUSAL_LM",
            base_model_name_or_path=self.source,
        )
        name = self._add(settings, seed)
        self.use(name)
        if not any(parameter.requires_grad for parameter in self.parameters(name)):
            raise ValueError(
                f"lora_targets {', '.join(lora.targets)}: none of these modules can be trained"
            )
        return name

    def _insist_on(self, targets: tuple[str, ...]) -> None:
        """Makes sure that each target is a module's name: peft is content with one that is."""
        if targets == ("all-linear",):
            return
        # Under an adapter a module keeps its name, and gets parts of its own.
        layers = {
            name.removeprefix("base_model.model."): module
            for name, module in self.base.named_modules()
            if ".base_layer" not in name and ".lora_" not in name
        }
        missing = [t for t in targets if not any(f".{name}".endswith(f".{t}") for name in layers)]
        if "all-linear" in targets:
            raise ValueError(f'lora_targets {", ".join(targets)}: "all-linear" stands alone')
        if missing or not targets:
            kinds = (torch.nn.Linear, torch.nn.Embedding)
            known = {
                name.rpartition(".")[2]
                for name, module in layers.items()
                if isinstance(getattr(module, "base_layer", module), kinds)
            }
            raise ValueError(
                f"lora_targets: {self.source} has no module {', '.join(missing) or 'of no name'}; "
                f"it has {', '.join(sorted(known))} (or all-linear)"
            )

    def load(self, folder: Path) -> str:
        """The adapter that `save` (or peft) wrote into a folder; returns its name.

        Raises:
            FileNotFoundError: A file is missing.
            ValueError: A file is damaged, or the adapter is of another model.
        """
        from_peft = _peft()
        if not (folder / WEIGHTS).is_file():
            raise FileNotFoundError(f"{folder} holds no {WEIGHTS}: not a whole saved adapter")
        name = self._add(from_peft.LoraConfig.from_pretrained(str(folder)), 0)
        try:
            weights = load_file(folder / WEIGHTS)
        except SafetensorError as error:
            raise ValueError(f"{folder / WEIGHTS} cannot be read: {error}") from error
        found = from_peft.set_peft_model_state_dict(self.model, weights, adapter_name=name)
        if self.shards is not None:
            # Reading into a model lets go of what it had gathered.
            self.shards.scatter()
        if found.unexpected_keys:
            raise ValueError(
                f"{folder} is an adapter for another model than {self.source}, which has no "
                f"{found.unexpected_keys[0]}"
            )
        return name

    def _add(self, settings: Any, seed: int) -> str:
        name = f"a{self._made}"
        self._made += 1
        settings.inference_mode = False
        if self.shards is not None:
            # An adapter takes its shape from the whole weights.
            self.shards.gather()
        devices = [self.base.device] if self.base.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            if self.model is None:
                self.model = _peft().get_peft_model(self.base, settings, adapter_name=name)
            else:
                self.model.add_adapter(name, settings)
        self._used = None
        return name

    def use(self, name: str | None) -> None:
        """Switches to an adapter; None: to the base model as it was."""
        tuner = self.model.base_model
        whole = self.shards is not None and self.shards.whole
        if whole != self._whole:
            # The parts of a sharded model are other parameters than the whole: what learns is
            # marked on those that are in their place now.
            self._used, self._whole = None, whole
        if name is None:
            tuner.disable_adapter_layers()
        else:
            if self._used is None:
                tuner.enable_adapter_layers()
            if self._used != name:
                self.model.set_adapter(name)
        self._used = name

    def shard(self) -> Shards:
        """Shards the model, with the adapters that are there, over the processes."""
        if self.shards is None:
            self.shards, self._used = Shards(self.base), None
        return self.shards

    def parameters(self, name: str) -> list[torch.nn.Parameter]:
        """An adapter's matrices."""
        # An embedding's are parameters themselves ("lora_embedding_A.NAME"), not modules.
        return [p for key, p in self.model.named_parameters() if name in key.split(".")]

    def save(self, name: str, folder: Path) -> None:
        """Writes the adapter, and where its base is, in peft's form.

        Of a model that is sharded over processes, all of them call it; the leading one writes.
        """
        if self.shards is None:
            self._write(name, folder, None)
            return
        self.shards.scatter()
        own = {k: p for k, p in self.model.named_parameters() if name in k.split(".")}
        state = gathered(own)
        team().led(lambda: self._write(name, folder, state))

    def _write(self, name: str, folder: Path, state: dict[str, torch.Tensor] | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        weights = _peft().get_peft_model_state_dict(
            self.model, state_dict=state, adapter_name=name, save_embedding_layers=False
        )
        save_file({k: v.detach().cpu().contiguous() for k, v in weights.items()}, folder / WEIGHTS)
        settings = self.model.peft_config[name].to_dict()
        settings["inference_mode"] = True
        settings["base_model_name_or_path"] = self.source
        text = json.dumps(settings, indent=2, default=_plain, sort_keys=True)
        (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def base_of(folder: Path) -> str:
    """Name or folder of the model that a saved adapter belongs to.

    Raises:
        ValueError: The adapter's settings cannot be read or do not name it.
    """
    path = folder / CONFIG
    try:
        named = json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path} does not name the adapter's base model: {error}") from error
    return str(named)


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, (set, frozenset)) else str(value)


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise MissingDependencyError("peft", "an adapter (lora_rank > 0)", "hf") from error
    return peft
