"""A logits processor for vLLM: answers that are among some, token by token, and ids never written.

It does in vLLM what `himac_agents.policies.generation` does in the process that learns, so that the
ids come out, and the distribution they are drawn from, are the same on both sides. Structured
output's own `choice` would give the right words in other ids.
"""

from __future__ import annotations

import json
import math
from typing import Any

import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, MoveDirectionality

from himac_agents.policies.served.plugin.walk import Walk

#: The names of a request's extra arguments (`vllm_xargs`): the choices as JSON, ids as a list.
CHOICES, BARRED = "himac_choices", "himac_barred"


class AllowedAnswers(LogitsProcessor):
    """Forbids what cannot become one of a request's choices, and the ids it bars.

    Requests that ask for neither are left as they are.
    """

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self._device = device
        self._walks: dict[int, Walk] = {}
        self._barred: dict[int, torch.Tensor] = {}

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Refuses arguments that are none.

        Raises:
            ValueError: Choices are not lists of ids, or there is none.
        """
        _choices(sampling_params)

    def is_argmax_invariant(self) -> bool:
        """It is not: greedy answers are constrained, too."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follows the requests through the batch's rows."""
        if batch_update is None:
            return
        for held in (self._walks, self._barred):
            for row in batch_update.removed:
                held.pop(row, None)
        for row, params, _, written in batch_update.added:
            self._walks.pop(row, None)
            self._barred.pop(row, None)
            if params is None:
                continue
            choices = _choices(params)
            if choices is not None:
                self._walks[row] = Walk(choices, written)
            if barred := (params.extra_args or {}).get(BARRED):
                self._barred[row] = torch.tensor([int(i) for i in barred], device=self._device)
        for held in (self._walks, self._barred):
            for source, target, how in batch_update.moved:
                _move(held, source, target, both=how is MoveDirectionality.SWAP)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Sets what is forbidden to minus infinity, in place."""
        for row, barred in self._barred.items():
            logits[row, barred] = -math.inf
        for row, walk in self._walks.items():
            options = walk.options()
            if not options:  # the answer is whole: what is drawn after it is thrown away
                continue
            ids = torch.tensor(options, device=logits.device)
            kept = logits[row, ids]
            logits[row] = -math.inf
            logits[row, ids] = kept
        return logits


def _choices(params: SamplingParams) -> list[tuple[int, ...]] | None:
    told = (params.extra_args or {}).get(CHOICES)
    if told is None:
        return None
    try:
        found = [tuple(int(i) for i in choice) for choice in json.loads(told)]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{CHOICES} must be JSON: a list of lists of token ids") from error
    if not found or not all(found):
        raise ValueError(f"{CHOICES} holds no choice, or an empty one")
    return found


def _move(held: dict[int, Any], source: int, target: int, *, both: bool) -> None:
    first, second = held.pop(source, None), held.pop(target, None)
    if first is not None:
        held[target] = first
    if both and second is not None:
        held[source] = second
