"""Batched generation with a cache: one call of a local model's `generate`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from himac_agents.policies.base import Completion, Prompt, Sampling
from himac_agents.policies.generation.cache import SlotCache
from himac_agents.policies.generation.reader import Reader
from himac_agents.policies.generation.restricted import Answer, forbid
from himac_agents.policies.noise import uniforms

# What reading costs, in tokens (fitted to the times of a small model on one CPU core; on other
# machines it is the order of magnitude that matters).
#: A forward pass, beside its tokens.
_PASS = 110
#: A key that a row's tokens see: once a row, for each of its tokens, and for copying it first,
#: where rows are picked from the cache.
_SEEN, _ATTENDED, _COPIED = 0.043, 0.001, 0.015
#: Rows whose keys differ by fewer than this are read together.
_STEP = 64


class Writer(Protocol):
    """What is used here of a `CausalPolicy`."""

    model: Any
    device: torch.device
    barred: Tensor | None
    reader: Reader | None
    end_ids: tuple[int, ...]
    pad_id: int

    def decode(self, ids: Sequence[int]) -> str:
        """See `CausalPolicy.decode`."""
        ...

    def prefix_keys(self, prompt: Prompt) -> list[int]:
        """See `CausalPolicy.prefix_keys`."""
        ...

    def prefix_shift(self, prompt: Prompt) -> int:
        """See `CausalPolicy.prefix_shift`."""
        ...

    def reading_inputs(
        self,
        fed: NDArray[np.int64],
        positions: NDArray[np.int64],
        prompts: Sequence[Prompt] | None,
        shifts: NDArray[np.int64],
    ) -> dict[str, Any]:
        """See `CausalPolicy.reading_inputs`."""
        ...


class Decoding:
    """One call of `generate`: feed what the cache lacks, then write token by token."""

    def __init__(
        self,
        policy: Writer,
        cache: SlotCache,
        slots: Sequence[int],
        prompts: Sequence[Prompt],
        sampling: Sampling,
    ) -> None:
        self.policy, self.cache, self.sampling = policy, cache, sampling
        self.noise = [prompt.noise for prompt in prompts]
        self.slots = slots
        self.rows = cache.seat(slots)
        self.asked = prompts
        self.prompts = [list(prompt.token_ids) for prompt in prompts]
        self.keys = [policy.prefix_keys(prompt) for prompt in prompts]
        self.shifts = np.zeros(cache.rows, dtype=np.int64)
        for row, prompt in zip(self.rows, prompts, strict=True):
            self.shifts[row] = policy.prefix_shift(prompt)
        self.answers = [Answer(prompt.choices) for prompt in prompts]
        # Where the whole cache takes part in a pass, rows that are not asked, or have finished,
        # compute something nobody reads.
        self.lengths = np.zeros(cache.rows, dtype=np.int64)
        for slot, row in cache.row_of.items():
            self.lengths[row] = len(cache.tokens[slot])
        cache.reserve(max(len(ids) for ids in self.prompts) + sampling.max_tokens)
        if policy.reader is not None:
            policy.reader.refresh()

    def run(self) -> list[Completion]:
        """Decodes until every prompt has its end token or the most tokens allowed."""
        policy, most = self.policy, self.sampling.max_tokens
        last = self._prefill()
        alive = list(range(len(self.prompts)))
        fed = [list(keys) for keys in self.keys]
        while True:
            ids, logps = self._draw(last, alive)
            for i, token, logp in zip(alive, ids, logps, strict=True):
                self.answers[i].write(int(token), float(logp))
                self.answers[i].write_forced()
            alive = [
                i
                for i in alive
                if (a := self.answers[i]).tokens[-1] not in policy.end_ids and len(a.tokens) < most
            ]
            if not alive:
                break
            last = self._feed(alive, fed)
        completions = []
        for slot, answer, held in zip(self.slots, self.answers, fed, strict=True):
            self.cache.tokens[slot] = held
            text = policy.decode(answer.tokens)
            parts = (tuple(answer.tokens), tuple(answer.logps), tuple(answer.allowed))
            # What knows no end is never cut.
            cut = bool(policy.end_ids) and answer.tokens[-1] not in policy.end_ids
            completions.append(Completion(text, *parts, cut=cut))
        return completions

    def _feed(self, alive: list[int], fed: list[list[int]]) -> Tensor:
        """Feeds what was written since the last pass; logits [alive, vocabulary] after it."""
        longest = max(len(self.answers[i].pending) for i in alive)
        widths = [int(self.lengths[self.rows[i]]) + longest for i in alive]
        order = sorted(range(len(alive)), key=widths.__getitem__)
        groups, cost = cheapest(order, [longest] * len(alive), widths)
        # The whole cache takes part, and nothing is copied, where that is less work than picking
        # the rows that still write.
        width = int(self.lengths.max()) + longest
        if _PASS + self.cache.rows * _work(longest, width, picked=False) <= cost:
            return self._feed_rows(alive, fed, longest, whole=True)
        last: list[Tensor | None] = [None] * len(alive)
        for group in groups:
            logits = self._feed_rows([alive[k] for k in group], fed, longest, whole=False)
            for at, k in enumerate(group):
                last[k] = logits[at]
        return torch.stack([row for row in last if row is not None])

    def _feed_rows(
        self, alive: list[int], fed: list[list[int]], longest: int, whole: bool
    ) -> Tensor:
        """One pass of `_feed`, over the whole cache or over the rows of `alive`."""
        rows = range(self.cache.rows) if whole else [self.rows[i] for i in alive]
        place = [self.rows[i] for i in alive] if whole else range(len(alive))
        tokens = np.full((len(rows), longest), self.policy.pad_id, dtype=np.int64)
        ends = np.zeros(len(rows), dtype=np.int64)
        for at, i in zip(place, alive, strict=True):
            pending = self.answers[i].pending
            tokens[at, : len(pending)] = pending
            ends[at] = len(pending) - 1
        positions = self.lengths[rows][:, None] + np.arange(longest)[None, :]
        picked = None if whole else list(rows)
        logits = self._forward(tokens, picked, positions, ends.tolist())[:, 0]
        for i in alive:
            answer = self.answers[i]
            fed[i] += answer.pending
            self.lengths[self.rows[i]] += len(answer.pending)
            answer.pending = []
        return logits[torch.tensor(place, device=self.policy.device)] if whole else logits

    def _prefill(self) -> Tensor:
        """Feeds each prompt's new tokens; returns the logits [prompts, vocabulary] after them."""
        feeds: list[list[int]] = []
        starts: list[int] = []
        for slot, ids, keys in zip(self.slots, self.prompts, self.keys, strict=True):
            start = self.cache.shared_prefix(slot, keys)
            starts.append(start)
            feeds.append(ids[start:])
        # Rows with much to read (a new episode, a plan) and rows with little (one observation)
        # are read apart, so that the short ones are not padded to the long ones' length.
        lengths, widths = [len(feed) for feed in feeds], [len(ids) for ids in self.prompts]
        order = sorted(range(len(feeds)), key=lambda i: (lengths[i], widths[i]))
        last: list[Tensor | None] = [None] * len(feeds)
        for group in cheapest(order, lengths, widths)[0]:
            longest = max(len(feeds[i]) for i in group)
            fed = np.full((len(group), longest), self.policy.pad_id, dtype=np.int64)
            positions = np.zeros((len(group), longest), dtype=np.int64)
            for k, i in enumerate(group):
                fed[k, : len(feeds[i])] = feeds[i]
                positions[k] = starts[i] + np.arange(longest)
            whole = len(group) == self.cache.rows and [self.rows[i] for i in group] == list(
                range(len(group))
            )
            rows = None if whole else [self.rows[i] for i in group]
            ends = [len(feeds[i]) - 1 for i in group]
            logits = self._forward(fed, rows, positions, ends, [self.asked[i] for i in group])
            for k, i in enumerate(group):
                last[i] = logits[k, 0]
                self.lengths[self.rows[i]] = starts[i] + len(feeds[i])
        return torch.stack([logits for logits in last if logits is not None])

    def _forward(
        self,
        fed: np.ndarray[Any, np.dtype[np.int64]],
        rows: list[int] | None,
        positions: np.ndarray[Any, np.dtype[np.int64]],
        ends: list[int] | None = None,
        prompts: list[Prompt] | None = None,
    ) -> Tensor:
        """One forward pass; logits [batch, time or 1 (at `ends`), vocabulary]."""
        policy, device = self.policy, self.policy.device
        at = torch.as_tensor(positions, device=device)
        width = int(positions.max()) + 1
        self.cache.aim(None if rows is None else torch.tensor(rows, device=device), at, width)
        dtype = policy.model.dtype
        hidden_from = torch.arange(width, device=device)[None, None, None, :] > at[:, None, :, None]
        mask = torch.zeros(hidden_from.shape, dtype=dtype, device=device)
        mask.masked_fill_(hidden_from, torch.finfo(dtype).min)
        if ends is not None and policy.reader is not None:
            ids, last = torch.as_tensor(fed, device=device), torch.tensor(ends, device=device)
            return policy.reader.next_logits(ids, at, mask, last, self.cache)[:, None]
        # Of a long prompt only the last position's logits are wanted.
        wanted = sorted(set(ends)) if ends is not None else []
        keep = torch.tensor(wanted, device=device) if wanted else 0
        logits: Tensor = policy.model(
            **policy.reading_inputs(
                fed, positions, prompts, self.shifts if rows is None else self.shifts[rows]
            ),
            attention_mask=mask,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=keep,
        ).logits
        if ends is None:
            return logits
        index = torch.tensor([wanted.index(end) for end in ends], device=device)
        return logits[torch.arange(len(ends), device=device), index][:, None]

    def _draw(
        self, logits: Tensor, alive: list[int]
    ) -> tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.float32]]]:
        """Draws one token for each row that is still writing; ids and their log-probabilities.

        Each row has one random number of its own, and takes the first token at which the sum of
        probabilities exceeds it.
        """
        logits = logits.float()
        # A greedy answer is scored under the model at temperature 1.
        if self.sampling.temperature not in (0.0, 1.0):
            logits = logits / self.sampling.temperature
        if self.policy.barred is not None:
            logits = logits.index_fill(-1, self.policy.barred, -math.inf)
        bound = [k for k, i in enumerate(alive) if self.answers[i].left is not None]
        if bound:
            logits = forbid(logits, [(k, self.answers[alive[k]].options()) for k in bound])
        logp = torch.log_softmax(logits, dim=-1)
        if self.sampling.greedy:
            ids = logp.argmax(-1)
        else:
            places = [len(self.answers[i].tokens) for i in alive]
            drawn = uniforms([self.noise[i] for i in alive], places)
            ids = inverse(logp, torch.as_tensor(drawn, device=logits.device))
        chosen = logp.gather(-1, ids[:, None])[:, 0]
        return ids.cpu().numpy(), chosen.cpu().numpy()


def inverse(logp: Tensor, drawn: Tensor) -> Tensor:
    """The tokens [rows] at which the sums of probabilities first exceed the numbers drawn.

    Sums are taken in double precision: over a vocabulary of 150,000, those in single precision
    are off by more than rare tokens weigh. A token of probability 0 is never taken.

    Args:
        logp: [rows, vocabulary] log-probabilities.
        drawn: [rows] numbers in [0, 1).
    """
    sums = logp.exp().double().cumsum(-1)
    total = sums[:, -1:].contiguous()
    ids = torch.searchsorted(sums, drawn[:, None] * total, right=True)
    # Rounding may put a number drawn near 1 behind the last token that has any probability.
    last = torch.searchsorted(sums, total)
    return torch.minimum(ids, last)[:, 0]


def _work(length: int, width: int, *, picked: bool) -> float:
    """What one row costs that reads `length` tokens and sees `width` keys, in tokens."""
    return length + width * (_SEEN + _ATTENDED * length + _COPIED * picked)


def cheapest(
    order: Sequence[int], lengths: Sequence[int], widths: Sequence[int]
) -> tuple[list[list[int]], float]:
    """Cuts rows, in the order given, into the groups that are cheapest to read, and their cost.

    Every row of a group costs as much as its longest, and every group a forward pass. The cuts that
    make the sum smallest are found exactly, between rows that differ by `_STEP` keys or more.

    Args:
        order: Indices of the rows, those that are alike beside each other.
        lengths: Tokens that each row has to read.
        widths: Keys that each row's last token sees.
    """
    kinds = [(lengths[i], widths[i] // _STEP) for i in order]
    bounds = [k for k in range(len(order)) if k == 0 or kinds[k] != kinds[k - 1]] + [len(order)]
    # best[b]: (cost of reading the rows before bounds[b], where its last group begins)
    best: list[tuple[float, int]] = [(0.0, 0)]
    for b in range(1, len(bounds)):
        longest = width = 0
        found = (math.inf, 0)
        for a in range(b - 1, -1, -1):
            part = order[bounds[a] : bounds[a + 1]]
            longest = max(longest, *(lengths[i] for i in part), 0)
            width = max(width, *(widths[i] for i in part), 0)
            rows = bounds[b] - bounds[a]
            cost = best[a][0] + _PASS + rows * _work(longest, width, picked=True)
            found = min(found, (cost, a))
        best.append(found)
    groups: list[list[int]] = []
    b = len(bounds) - 1
    while b > 0:
        a = best[b][1]
        groups.append(list(order[bounds[a] : bounds[b]]))
        b = a
    return groups[::-1], best[-1][0]
