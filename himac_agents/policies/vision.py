"""Models that see pictures: `AutoModelForImageTextToText` with what `AutoProcessor` reads with.

A picture stands in a conversation where the chat template puts the model's image token, and takes
as many tokens as the model's processor says. Keys and values of pictures are cached like those of
words; two conversations share a beginning only as far as their pictures are the same.

Without torchvision transformers cannot make the whole processor of a model that also reads videos;
its tokenizer and its PIL image processor are then taken by themselves, which give the same numbers.
"""

from __future__ import annotations

import hashlib
import inspect
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from himac_agents.policies.base import Image, Message, Prompt, TokenBatch
from himac_agents.policies.chat import ChatPolicy
from himac_envs.errors import MissingDependencyError

#: Pictures whose pixels are kept ready; games show the same ones again and again.
_KEPT = 4096


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as a model takes it.

    Attributes:
        key: A negative number that tells it from other pictures (and from token ids).
        token_ids: The ids that stand for it in a conversation.
        inputs: The model's arguments, of which those of several pictures are concatenated.
    """

    key: int
    token_ids: tuple[int, ...]
    inputs: dict[str, Tensor]


class Eyes:
    """Tokenizer and image processor of a vision model.

    Args:
        tokenizer: The tokenizer, with a chat template.
        image_processor: Makes pixel arrays of pictures.
        processor: The whole processor, where transformers can make it.
        image_token: The token that the chat template writes for a picture.
    """

    def __init__(
        self, tokenizer: Any, image_processor: Any, processor: Any, image_token: str
    ) -> None:
        self.tokenizer, self.image_processor, self.processor = tokenizer, image_processor, processor
        self.image_token = image_token
        self.image_token_id = int(tokenizer.convert_tokens_to_ids(image_token))
        self._seen: OrderedDict[int, Picture] = OrderedDict()

    def see(self, image: Image) -> Picture:
        """The picture's pixels and tokens."""
        digest = hashlib.blake2b(
            image.tobytes() + repr(image.shape).encode(), digest_size=7
        ).digest()
        key = -1 - int.from_bytes(digest, "big")
        found = self._seen.get(key)
        if found is None:
            found = self._seen[key] = self._look(key, image)
            if len(self._seen) > _KEPT:
                self._seen.popitem(last=False)
        return found

    def _look(self, key: int, image: Image) -> Picture:
        if self.processor is not None:
            made = self.processor(text=[self.image_token], images=[image], return_tensors="pt")
            ids = [int(i) for i in made["input_ids"][0]]
            known = self.image_processor.model_input_names
        else:
            made = self.image_processor(images=[image], return_tensors="pt")
            patches = int(made["image_grid_thw"][0].prod())
            ids = [self.image_token_id] * (patches // self.image_processor.merge_size**2)
            known = list(made)
        if self.image_token_id not in ids:
            raise ValueError(
                f"the model's processor writes no {self.image_token} for a picture: this kind of "
                "vision model is not supported; those of the Qwen-VL families are"
            )
        inputs = {name: made[name] for name in known if name in made}
        return Picture(key, tuple(ids), inputs)

    def keys(self, token_ids: Sequence[int], pictures: Sequence[Picture]) -> list[int]:
        """The ids with each picture's tokens replaced by its key."""
        found = list(token_ids)
        spread = [p for p in pictures for i in p.token_ids if i == self.image_token_id]
        for place, picture in zip(self.places(token_ids), spread, strict=True):
            found[place] = picture.key
        return found

    def places(self, token_ids: Sequence[int]) -> list[int]:
        """Where pictures' tokens stand."""
        return [i for i, token in enumerate(token_ids) if token == self.image_token_id]


def load_eyes(source: str) -> Eyes:
    """What a vision model reads with, from its folder or by its name.

    Raises:
        MissingDependencyError: Pillow is not installed.
        ImportError: The model's processor needs another package.
    """
    from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer

    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("pillow", "a vision model", "hf") from error
    tokenizer, processor = AutoTokenizer.from_pretrained(source), None
    try:
        processor = AutoProcessor.from_pretrained(source)
        image_processor = processor.image_processor
        if getattr(processor, "chat_template", None):
            tokenizer.chat_template = processor.chat_template
    except ImportError:
        image_processor = AutoImageProcessor.from_pretrained(source)
        if "image_grid_thw" not in image_processor.model_input_names:
            raise
    token = getattr(processor, "image_token", None) or getattr(tokenizer, "image_token", None)
    return Eyes(tokenizer, image_processor, processor, token or "<|image_pad|>")


class VisionPolicy(ChatPolicy):
    """A vision-language model as a policy; see the module's text and `ChatPolicy`.

    Args:
        model: A transformers image-text-to-text model.
        eyes: What it reads with.
        **others: See `ChatPolicy`.
    """

    def __init__(self, model: Any, eyes: Eyes, **others: Any) -> None:
        self.eyes = eyes
        super().__init__(model, eyes.tokenizer, **others)
        # A written image token would ask for a picture that is not there.
        named = (self.eyes.image_token_id, getattr(model.config, "video_token_id", None))
        self.bar(i for i in named if i is not None)
        core = next((m for m in model.modules() if hasattr(m, "get_rope_index")), None)
        self._rope_index = None if core is None else core.get_rope_index
        base = model if self.host is None else model.get_base_model()
        self._wants_types = "mm_token_type_ids" in inspect.signature(base.forward).parameters
        if "token_type_ids" in inspect.signature(base.forward).parameters:
            raise ValueError(
                f"{type(base).__name__} has bidirectional attention over pictures, for which the "
                "rollout's cache is not exact: choose a model with causal attention, such as "
                "Qwen-VL"
            )

    def without_adapter(self) -> VisionPolicy:
        """See `ChatPolicy.without_adapter`."""
        if self.host is None:
            raise ValueError("this policy is a whole model, not an adapter on a base model")
        return VisionPolicy(self.model, self.eyes, host=self.host, loading=self.loading)

    def shard(self) -> None:
        """Not these: a pass without pictures leaves out what sees them.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "shard: vision-language models cannot be sharded: leave it out; if the whole model is "
            "too large, train an adapter (--lora-rank)"
        )

    # -- text and tokens -------------------------------------------------------------------------

    def _turn(self, message: Message) -> dict[str, Any]:
        parts: list[dict[str, str]] = [{"type": "image"} for _ in message.images]
        return {"role": message.role, "content": [*parts, {"type": "text", "text": message.text}]}

    def _shown(self, ids: list[int], messages: Sequence[Message]) -> list[int]:
        pictures = iter([self.eyes.see(image) for message in messages for image in message.images])
        token, count = self.eyes.image_token_id, sum(len(m.images) for m in messages)
        if ids.count(token) != count:
            raise ValueError(
                f"{ids.count(token)} times {self.eyes.image_token} for {count} pictures: the chat "
                "template must write one for each"
            )
        return [i for t in ids for i in (next(pictures).token_ids if t == token else (t,))]

    def prefix_keys(self, prompt: Prompt) -> list[int]:
        """Token ids, and keys where pictures are: equal tokens of unequal pictures differ."""
        return self.eyes.keys(prompt.token_ids, [self.eyes.see(i) for i in prompt.images])

    # -- the model's arguments -------------------------------------------------------------------

    def prefix_shift(self, prompt: Prompt) -> int:
        """See `CausalPolicy.prefix_shift`: a picture takes fewer positions than tokens."""
        ids = torch.tensor([list(prompt.token_ids)], device=self.device)
        places = self._places(ids, [self.eyes.see(image) for image in prompt.images])
        return 0 if places is None else int(places.max()) + 1 - ids.shape[1]

    def reading_inputs(
        self,
        fed: NDArray[np.int64],
        positions: NDArray[np.int64],
        prompts: Sequence[Prompt] | None,
        shifts: NDArray[np.int64],
    ) -> dict[str, Any]:
        """See `CausalPolicy.reading_inputs`."""
        ids = torch.as_tensor(fed, device=self.device)
        at = torch.as_tensor(positions, device=self.device)
        if prompts is None:
            if self._rope_index is not None:
                at = (at + torch.as_tensor(shifts, device=self.device)[:, None]).expand(3, -1, -1)
            return {"input_ids": ids, "position_ids": at}
        pictures: list[Picture] = []
        spots = None if self._rope_index is None else at.expand(3, -1, -1).clone()
        for row, prompt in enumerate(prompts):
            start, whole = int(positions[row, 0]), list(prompt.token_ids)
            shown = [self.eyes.see(image) for image in prompt.images]
            stop = min(len(whole), start + fed.shape[1])
            if spots is not None:
                places = self._places(torch.tensor([whole], device=self.device), shown)
                assert places is not None
                spots[:, row, : stop - start] = places[:, 0, start:stop]
            before = len(self.eyes.places(whole[:start]))
            for picture in shown:
                count = picture.token_ids.count(self.eyes.image_token_id)
                if before <= 0:
                    pictures.append(picture)
                before -= count
        inputs = {"input_ids": ids, "position_ids": at if spots is None else spots}
        return {**inputs, **self._pixels(pictures), **self._types(ids)}

    def learning_inputs(self, ids: Tensor, batch: TokenBatch) -> dict[str, Any]:
        """See `CausalPolicy.learning_inputs`."""
        shown = batch.images or [()] * len(batch)
        pictures = [self.eyes.see(image) for images in shown for image in images]
        found = {"input_ids": ids, **self._pixels(pictures), **self._types(ids)}
        places = self._places(ids, pictures)
        return found if places is None else {**found, "position_ids": places}

    def _pixels(self, pictures: Sequence[Picture]) -> dict[str, Tensor]:
        if not pictures:
            return {}
        return {
            name: torch.cat([picture.inputs[name] for picture in pictures]).to(self.device)
            for name in pictures[0].inputs
        }

    def _types(self, ids: Tensor) -> dict[str, Tensor]:
        return {"mm_token_type_ids": self._kinds(ids)} if self._wants_types else {}

    def _kinds(self, ids: Tensor) -> Tensor:
        return (ids == self.eyes.image_token_id).int()

    def _places(self, ids: Tensor, pictures: Sequence[Picture]) -> Tensor | None:
        """Rotary positions [3, batch, time]; None where the model counts tokens like any other."""
        if self._rope_index is None:
            return None
        if not pictures:
            return torch.arange(ids.shape[1], device=self.device).expand(3, *ids.shape)
        known = inspect.signature(self._rope_index).parameters
        grid = torch.cat([p.inputs["image_grid_thw"] for p in pictures]).to(self.device)
        given = {"mm_token_type_ids": self._kinds(ids), "image_grid_thw": grid}
        found: Tensor = self._rope_index(ids, **{k: v for k, v in given.items() if k in known})[0]
        return found
