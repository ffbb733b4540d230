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
from himac_agents.policies.generation.draft import LONGEST, MOST
from himac_agents.policies.generation.reader import Reader
from himac_agents.policies.generation.restricted import Answer, forbid
from himac_agents.policies.noise import uniforms

# What reading costs, in tokens (fitted to the times of a small model on one CPU core; on other
# machines it is the order of magnitude that matters).
#: A forward pass, beside its tokens.
_PASS = 130
#: A key that a row's tokens see: once a row, for each of its tokens, and for copying it first,
#: where rows are picked from the cache.
_SEEN, _ATTENDED, _COPIED = 0.043, 0.002, 0.005
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
        self.dtype = policy.model.dtype
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
        self.fed = [list(keys) for keys in self.keys]
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
        policy = self.policy
        alive = list(range(len(self.prompts)))
        drafts = [self._guess(i) for i in alive]
        logits = self._prefill(drafts)
        while alive := self._write(alive, drafts, logits):
            drafts = [self._guess(i) for i in alive]
            logits = self._feed(alive, drafts)
        completions = []
        for slot, answer, held, prompt in zip(
            self.slots, self.answers, self.fed, self.prompts, strict=True
        ):
            self.cache.tokens[slot] = held
            self.cache.draft.learn(prompt, answer.tokens)
            text = policy.decode(answer.tokens)
            parts = (tuple(answer.tokens), tuple(answer.logps), tuple(answer.allowed))
            # What knows no end is never cut.
            cut = bool(policy.end_ids) and answer.tokens[-1] not in policy.end_ids
            completions.append(Completion(text, *parts, cut=cut))
        return completions

    def _guess(self, i: int) -> list[int]:
        """What row i is expected to write next, to be fed before it is known."""
        answer, written = self.answers[i], len(self.answers[i].tokens)
        # A picture's tokens have places of their own, which what follows in one pass lacks.
        if not written and self.asked[i].images:
            return []
        left = None if answer.left is None else [choice[written:] for choice in answer.left]
        most = min(MOST, self.sampling.max_tokens - written - 1)
        return self.cache.draft.guess([*self.prompts[i][-LONGEST:], *answer.tokens], left, most)

    def _write(self, alive: list[int], drafts: list[list[int]], logits: list[Tensor]) -> list[int]:
        """Draws what the last pass allows; returns the rows that need another one.

        Args:
            alive: Rows that are still writing.
            drafts: The guess that each of them was fed.
            logits: [guess or more, vocabulary] of each: after what was known, and after each
                guessed token.
        """
        ends, most = self.policy.end_ids, self.sampling.max_tokens
        at = [0] * len(alive)
        going = list(range(len(alive)))
        unfinished: list[int] = []
        while going:
            rows = [alive[k] for k in going]
            ids, logps = self._draw(torch.stack([logits[k][at[k]] for k in going]), rows)
            agree: list[int] = []
            for k, i, token, logp in zip(going, rows, ids, logps, strict=True):
                answer = self.answers[i]
                answer.write(int(token), float(logp))
                answer.write_forced()
                known = 0
                for new, guessed in zip(answer.pending, drafts[k][at[k] :], strict=False):
                    if new != guessed:
                        break
                    known += 1
                self._fed(i, known)
                at[k] += known
                if answer.tokens[-1] not in ends and len(answer.tokens) < most:
                    # All that was written has been read already, so that the next can be drawn.
                    (unfinished if answer.pending else agree).append(k)
            going = agree
        return [alive[k] for k in sorted(unfinished)]

    def _fed(self, i: int, count: int) -> None:
        """Row i's cache holds so many more tokens of what was to be fed."""
        answer = self.answers[i]
        self.fed[i] += answer.pending[:count]
        self.lengths[self.rows[i]] += count
        del answer.pending[:count]

    def _feed(self, alive: list[int], drafts: list[list[int]]) -> list[Tensor]:
        """Feeds what was written since the last pass and what is guessed to follow.

        Returns:
            For each row what `_write` takes.
        """
        feeds = [self.answers[i].pending for i in alive]
        lengths = [len(feed) + len(draft) for feed, draft in zip(feeds, drafts, strict=True)]
        widths = [int(self.lengths[self.rows[i]]) + n for i, n in zip(alive, lengths, strict=True)]
        longest = max(lengths)
        order = sorted(range(len(alive)), key=widths.__getitem__)
        groups, cost = cheapest(order, [longest] * len(alive), widths)
        # The whole cache takes part, and nothing is copied, where that is less work than picking
        # the rows that still write.
        width = max(int(self.lengths.max()) + 1, *widths)
        if _PASS + self.cache.rows * _work(longest, width, picked=False) <= cost:
            logits = self._read(alive, feeds, drafts, whole=True)
        else:
            found: dict[int, Tensor] = {}
            for group in groups:
                parts = [[values[k] for k in group] for values in (feeds, drafts)]
                read = self._read([alive[k] for k in group], *parts, whole=False)
                found.update(zip(group, read, strict=True))
            logits = [found[k] for k in range(len(alive))]
        for i, feed in zip(alive, feeds, strict=True):
            self._fed(i, len(feed))
        return logits

    def _prefill(self, drafts: list[list[int]]) -> list[Tensor]:
        """Feeds each prompt's new tokens and a guess; returns for each row what `_write` takes."""
        feeds: list[list[int]] = []
        for slot, ids, keys in zip(self.slots, self.prompts, self.keys, strict=True):
            start = self.cache.shared_prefix(slot, keys)
            self.lengths[self.cache.row_of[slot]] = start
            feeds.append(ids[start:])
        # Rows with much to read (a new episode, a plan) and rows with little (one observation)
        # are read apart, so that the short ones are not padded to the long ones' length.
        lengths = [len(feed) + len(draft) for feed, draft in zip(feeds, drafts, strict=True)]
        widths = [len(ids) + len(draft) for ids, draft in zip(self.prompts, drafts, strict=True)]
        order = sorted(range(len(feeds)), key=lambda i: (lengths[i], widths[i]))
        found: dict[int, Tensor] = {}
        for group in cheapest(order, lengths, widths)[0]:
            whole = len(group) == self.cache.rows and [self.rows[i] for i in group] == list(
                range(len(group))
            )
            parts = [[values[i] for i in group] for values in (feeds, drafts)]
            asked = [self.asked[i] for i in group]
            read = self._read(group, *parts, whole=whole, prompts=asked)
            found.update(zip(group, read, strict=True))
        for i, feed in enumerate(feeds):
            self.lengths[self.rows[i]] += len(feed)
        return [found[i] for i in range(len(feeds))]

    def _read(
        self,
        alive: list[int],
        feeds: list[list[int]],
        drafts: list[list[int]],
        *,
        whole: bool,
        prompts: list[Prompt] | None = None,
    ) -> list[Tensor]:
        """One pass over what some rows are fed; for each row what `_write` takes.

        Guesses stand in columns of their own, behind the longest feed, so that the columns whose
        logits are wanted are few. Columns in between, and rows that are not asked, are padding: it
        is written behind the end of its row, where nothing looks.
        """
        rows = list(range(self.cache.rows)) if whole else [self.rows[i] for i in alive]
        place = [self.rows[i] for i in alive] if whole else list(range(len(alive)))
        known, most = max(map(len, feeds)), max(map(len, drafts))
        tokens = np.full((len(rows), known + most), self.policy.pad_id, dtype=np.int64)
        positions = np.repeat(self.lengths[rows][:, None], known + most, axis=1)
        wanted = np.zeros((len(rows), 1 + most), dtype=np.int64)
        for row, feed, draft in zip(place, feeds, drafts, strict=True):
            n, k = len(feed), len(draft)
            tokens[row, :n], tokens[row, known : known + k] = feed, draft
            start = positions[row, 0]
            positions[row] = start + n + k
            positions[row, :n] = start + np.arange(n)
            positions[row, known : known + k] = start + n + np.arange(k)
            wanted[row] = n - 1
            wanted[row, 1 : 1 + k] = known + np.arange(k)
        logits = self._forward(tokens, None if whole else rows, positions, wanted, prompts)
        return [logits[row] for row in place]

    def _forward(
        self,
        fed: NDArray[np.int64],
        rows: list[int] | None,
        positions: NDArray[np.int64],
        wanted: NDArray[np.int64],
        prompts: list[Prompt] | None,
    ) -> Tensor:
        """One forward pass; logits [batch, wanted, vocabulary] of the columns that are wanted."""
        policy, device = self.policy, self.policy.device
        at = torch.as_tensor(positions, device=device)
        width = int(positions.max()) + 1
        self.cache.aim(None if rows is None else torch.tensor(rows, device=device), at, width)
        mask = self.cache.mask(at, width, self.dtype)
        if policy.reader is not None:
            ids = torch.as_tensor(fed, device=device)
            places = torch.as_tensor(wanted, device=device)
            return policy.reader.next_logits(ids, at, mask, places, self.cache)
        # Of a long prompt only a few columns' logits are wanted.
        columns, spots = np.unique(wanted, return_inverse=True)
        logits: Tensor = policy.model(
            **policy.reading_inputs(
                fed, positions, prompts, self.shifts if rows is None else self.shifts[rows]
            ),
            attention_mask=mask,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=torch.as_tensor(columns, device=device),
        ).logits
        index = torch.as_tensor(spots.reshape(wanted.shape), device=device)
        return logits[torch.arange(len(fed), device=device)[:, None], index]

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
