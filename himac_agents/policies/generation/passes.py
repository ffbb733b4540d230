"""Forward passes over rows of a cache: what is fed to them, and what predicts their next tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from himac_agents.policies.base import Prompt
from himac_agents.policies.generation.cache import SlotCache
from himac_agents.policies.generation.costs import Block, Costs, cheapest
from himac_agents.policies.generation.reader import Reader


class Reads(Protocol):
    """What is used here of a `CausalPolicy`."""

    model: Any
    device: torch.device
    reader: Reader | None
    pad_id: int

    @property
    def costs(self) -> Costs:
        """See `CausalPolicy.costs`."""
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


@dataclass(frozen=True, slots=True)
class Feed:
    """What one row reads.

    Attributes:
        row: Its row of the cache.
        known: Tokens that follow what it holds.
        guessed: Tokens that may follow these.
        prompt: What they are a part of; None while an answer is written.
    """

    row: int
    known: list[int]
    guessed: list[int]
    prompt: Prompt | None = None

    def __len__(self) -> int:
        return len(self.known) + len(self.guessed)


@dataclass(frozen=True, slots=True)
class Read:
    """What predicts the tokens after some feeds.

    Attributes:
        states: [places, width]: hidden states, or the logits themselves where transformers reads.
        first: For each feed its first place, which follows what was known; one more follows for
            each of its guesses.
        head: The logits of states; with ids, of these ids alone.
    """

    states: Tensor
    first: list[int]
    head: Callable[[Tensor, Tensor | None], Tensor]


def joined(reads: Sequence[Read], which: Sequence[Sequence[int]]) -> Read:
    """Several reads as one.

    Args:
        reads: With one model.
        which: For each of them the numbers that its feeds have among all.
    """
    first = [0] * sum(map(len, which))
    start = 0
    for read, numbers in zip(reads, which, strict=True):
        for number, place in zip(numbers, read.first, strict=True):
            first[number] = start + place
        start += len(read.states)
    return Read(torch.cat([read.states for read in reads]), first, reads[0].head)


class Passes:
    """Reads what rows are fed, in as few and as full passes as pay.

    Args:
        policy: Whose model reads.
        cache: Where keys and values are.
        lengths: [rows of the cache] what each holds; the caller keeps it up to date.
        shifts: [rows of the cache] see `CausalPolicy.prefix_shift`.
    """

    def __init__(
        self,
        policy: Reads,
        cache: SlotCache,
        lengths: NDArray[np.int64],
        shifts: NDArray[np.int64],
    ) -> None:
        self.policy, self.cache, self.costs = policy, cache, policy.costs
        self.lengths, self.shifts = lengths, shifts
        self._behind = 0
        self._pad = _Padding(policy.pad_id, apart=policy.reader is None)
        if policy.reader is not None:
            policy.reader.refresh()

    def read(self, feeds: Sequence[Feed]) -> Read:
        """Feeds rows; their keys and values are then in the cache."""
        reader = self.policy.reader
        rows = [feed.row for feed in feeds]
        widths = [int(self.lengths[feed.row]) + len(feed) for feed in feeds]
        # Whoever makes a prompt's inputs knows of no rows between those that are asked.
        between = reader is not None or all(feed.prompt is None for feed in feeds)
        lengths = [len(feed) for feed in feeds]
        blocks = cheapest(lengths, widths, rows, self.costs, between=between)
        # Where no row holds anything, guesses of passes before included.
        behind = self._behind = max(self._behind, int(self.lengths.max()), *widths)
        first = [0] * len(feeds)
        states: list[Tensor] = []
        count = 0
        for part in self._parts(blocks) if reader is not None else [[block] for block in blocks]:
            laid = [_lay(block, feeds, self.lengths, behind, self._pad) for block in part]
            if reader is not None:
                states.append(self._ours(reader, part, laid, behind + 1))
            else:
                states.append(self._theirs(part[0], laid[0], feeds, behind + 1))
            for block, layout in zip(part, laid, strict=True):
                for member in block.members:
                    if member is not None:
                        first[member] = count
                    count += layout.wanted.shape[1]
        whole = states[0] if len(states) == 1 else torch.cat(states)
        return Read(whole, first, _picked if reader is None else reader.logits)

    def _parts(self, blocks: Sequence[Block]) -> Iterator[list[Block]]:
        """Blocks that are read in one pass."""
        part: list[Block] = []
        tokens = 0
        for block in blocks:
            size = len(block.rows) * block.time
            if part and tokens + size > self.costs.most:
                yield part
                part, tokens = [], 0
            part.append(block)
            tokens += size
        yield part

    def _ours(self, reader: Reader, blocks: list[Block], laid: list[_Layout], reach: int) -> Tensor:
        ids, rows, positions = (
            torch.from_numpy(np.concatenate([part.ravel() for part in parts])).to(
                self.policy.device
            )
            for parts in (
                [layout.tokens for layout in laid],
                [np.repeat(np.asarray(block.rows), block.time) for block in blocks],
                [layout.positions for layout in laid],
            )
        )
        wanted = [layout.wanted for layout in laid]
        self.cache.aim(blocks, rows, positions, reach)
        return reader.read(ids, positions, blocks, wanted, self.cache)

    def _theirs(self, block: Block, layout: _Layout, feeds: Sequence[Feed], reach: int) -> Tensor:
        policy, device = self.policy, self.policy.device
        at = torch.as_tensor(layout.positions, device=device)
        rows = torch.tensor(block.rows, device=device)[:, None]
        self.cache.aim([block], rows, at, reach)
        asked = [feeds[i].prompt for i in block.members if i is not None]
        prompts = [prompt for prompt in asked if prompt is not None]
        # Of a long prompt only a few columns' logits are wanted.
        columns, spots = np.unique(layout.wanted, return_inverse=True)
        inputs = policy.reading_inputs(
            layout.tokens, layout.positions, prompts or None, self.shifts[list(block.rows)]
        )
        logits: Tensor = policy.model(
            **inputs,
            attention_mask=self.cache.mask(at, block.width, policy.model.dtype),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=torch.as_tensor(columns, device=device),
        ).logits
        index = torch.as_tensor(spots.reshape(layout.wanted.shape), device=device)
        row = torch.arange(len(block.rows), device=device)[:, None]
        return logits[row, index].flatten(0, 1)


def _picked(states: Tensor, among: Tensor | None = None) -> Tensor:
    """Logits of what are logits already."""
    return states if among is None else states[:, among]


@dataclass(frozen=True, slots=True)
class _Layout:
    """A block as arrays: ids and places [rows, time], and which are wanted [rows, n]."""

    tokens: NDArray[np.int64]
    positions: NDArray[np.int64]
    wanted: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Padding:
    """How rows are made equally long.

    Attributes:
        token: The id that stands for nothing.
        apart: Guesses stand behind the longest feed, so that the columns that are wanted are few.
    """

    token: int
    apart: bool


def _lay(
    block: Block, feeds: Sequence[Feed], lengths: NDArray[np.int64], behind: int, pad: _Padding
) -> _Layout:
    """Lays a block's feeds out as arrays.

    What stands for nothing is written behind the end of its row, where nothing looks; in rows that
    are not fed here, which another block may feed, behind the end of all.

    Args:
        block: Whose they are.
        feeds: All feeds.
        lengths: What each row of the cache holds.
        behind: The end of all rows.
        pad: How they are made equally long.
    """
    here = [(place, feeds[i]) for place, i in enumerate(block.members) if i is not None]
    most = max(len(feed.guessed) for _, feed in here)
    longest = max(len(feed.known) for _, feed in here)
    time = longest + most if pad.apart else block.time
    tokens = np.full((len(block.rows), time), pad.token, dtype=np.int64)
    positions = np.full((len(block.rows), time), behind, dtype=np.int64)
    wanted = np.zeros((len(block.rows), 1 + most), dtype=np.int64)
    for place, feed in here:
        n, k = len(feed.known), len(feed.guessed)
        start, split = int(lengths[feed.row]), longest if pad.apart else n
        tokens[place, :n], tokens[place, split : split + k] = feed.known, feed.guessed
        positions[place] = start + n + k
        positions[place, :n] = start + np.arange(n)
        positions[place, split : split + k] = start + n + np.arange(k)
        wanted[place] = n - 1
        wanted[place, 1 : 1 + k] = split + np.arange(k)
    return _Layout(tokens, positions, wanted)
