"""A backend of vLLM's weight transfer that needs no GPU: the weights come as a safetensors file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from safetensors import safe_open
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.model_loader.reload import (
    finalize_layerwise_reload,
    initialize_layerwise_reload,
)


@dataclass
class FileInit(WeightTransferInitInfo):
    """Nothing is to be agreed on."""


@dataclass
class FileUpdate(WeightTransferUpdateInfo):
    """One file of weights.

    Attributes:
        path: Where it is, for this process.
    """

    path: str = ""


class WeightFileEngine(WeightTransferEngine[FileInit, FileUpdate]):
    """Reads the file and loads it as a checkpoint's weights are loaded."""

    init_info_cls = FileInit
    update_info_cls = FileUpdate

    def init_transfer_engine(self, init_info: FileInit) -> None:
        """Nothing is to be opened."""

    def start_weight_update(self) -> None:
        """Weights that were packed for the processor are taken apart again."""
        initialize_layerwise_reload(self.model)

    def finish_weight_update(self) -> None:
        """Packs the new weights."""
        finalize_layerwise_reload(self.model, self.model_config)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Loads a file; the base's own waits for an accelerator, which there is none of."""
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info: FileUpdate) -> None:
        """Loads a file."""
        with safe_open(update_info.path, "pt") as held:
            self.model.load_weights((name, held.get_tensor(name)) for name in held.keys())  # noqa: SIM118

    def shutdown(self) -> None:
        """Nothing is open."""
