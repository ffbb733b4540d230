"""Image features: the vectors that the original's authors computed for product images.

Source: ``get_image`` of the original's text environment, with its files ``feat_conv.pt`` (one
vector of 512 numbers an image) and ``feat_ids.pt`` (the images' addresses, in the same order).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from himac_envs.errors import MissingDependencyError
from himac_envs.webshop.errors import CatalogueError

SIZE = 512


class ImageFeatures:
    """Vectors by image address.

    Args:
        folder: Where ``feat_conv.pt`` and ``feat_ids.pt`` lie; reading them needs torch.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        vectors = _load(folder / "feat_conv.pt")
        addresses = _load(folder / "feat_ids.pt")
        self._vectors: NDArray[np.float32] = np.asarray(vectors, dtype=np.float32)
        if self._vectors.ndim != 2 or len(self._vectors) != len(addresses):
            raise CatalogueError(
                f"{folder}: feat_conv.pt holds an array of shape {self._vectors.shape}, "
                f"feat_ids.pt {len(addresses)} addresses; expected one vector an address"
            )
        self._place = {str(address): place for place, address in enumerate(addresses)}

    def __reduce__(self) -> tuple[Any, ...]:
        return shared_features, (self._folder,)

    def __deepcopy__(self, memo: Any) -> ImageFeatures:
        return self

    def of(self, address: str | None) -> NDArray[np.float32]:
        """Return an image's vector, [512] float32; zeros where there is none."""
        place = None if address is None else self._place.get(address)
        if place is None:
            return np.zeros(SIZE, np.float32)
        vector: NDArray[np.float32] = self._vectors[place].copy()
        return vector


@lru_cache(maxsize=2)
def shared_features(folder: Path) -> ImageFeatures:
    """Return the vectors in a folder; one object per process."""
    return ImageFeatures(folder)


def _load(path: Path) -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError(
            "torch", "reading WebShop's image features", "agents"
        ) from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CatalogueError(
            f"no image features at {path}: fetch feat_conv.pt and feat_ids.pt of the original"
        ) from error
    except Exception as error:
        raise CatalogueError(f"{path}: not a file that torch.save wrote ({error})") from error
