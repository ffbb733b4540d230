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


class Writer(Protocol):
    """What generation uses of a `CausalPolicy`; see there."""

    model: Any
    device: torch.device
    reader: Reader | None
    pad_id: int
    barred: Tensor | None
    end_ids: tuple[int, ...]

    @property
    def costs(self) -> Costs:
        """What reading costs."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of an answer."""
        ...

    def prefix_keys(self, prompt: Prompt) -> list[int]:
        """What stands for a prompt's tokens where beginnings are compared."""
        ...

    def prefix_shift(self, prompt: Prompt) -> int:
        """How far an answer's places are moved."""
        ...

    def reading_inputs(
        self,
        fed: NDArray[np.int64],
        positions: NDArray[np.int64],
        prompts: Sequence[Prompt] | None,
        shifts: NDArray[np.int64],
    ) -> dict[str, Any]:
        """What the model is fed."""
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
        policy: Writer,
        cache: SlotCache,
        lengths: NDArray[np.int64],
        shifts: NDArray[np.int64],
    ) -> None:
        self.policy, self.cache, self.costs = policy, cache, policy.costs
        self.lengths, self.shifts = lengths, shifts
        self._behind = 0
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
            layout = _lay(part, feeds, self.lengths, behind, self.policy.pad_id, reader is None)
            if reader is not None:
                states.append(self._ours(reader, part, layout, behind + 1))
            else:
                states.append(self._theirs(part[0], layout, feeds, behind + 1))
            for block, each in zip(part, layout.wanted_each, strict=True):
                for member in block.members:
                    if member is not None:
                        first[member] = count
                    count += each
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

    def _ours(self, reader: Reader, blocks: list[Block], layout: _Layout, reach: int) -> Tensor:
        ids, rows, positions, wanted = (
            torch.from_numpy(part).to(self.policy.device)
            for part in (layout.tokens, layout.rows, layout.positions, layout.wanted)
        )
        self.cache.aim(blocks, rows, positions, reach)
        return reader.read(ids, positions, blocks, wanted, layout.wanted_each, self.cache)

    def _theirs(self, block: Block, layout: _Layout, feeds: Sequence[Feed], reach: int) -> Tensor:
        policy, device = self.policy, self.policy.device
        shape = (len(block.rows), -1)
        tokens, positions = layout.tokens.reshape(shape), layout.positions.reshape(shape)
        at = torch.as_tensor(positions, device=device)
        rows = torch.tensor(block.rows, device=device)[:, None]
        self.cache.aim([block], rows, at, reach)
        asked = [feeds[i].prompt for i in block.members if i is not None]
        prompts = [prompt for prompt in asked if prompt is not None]
        # Of a long prompt only a few columns' logits are wanted.
        wanted = layout.wanted.reshape(shape) % tokens.shape[1]
        columns, spots = np.unique(wanted, return_inverse=True)
        inputs = policy.reading_inputs(
            tokens, positions, prompts or None, self.shifts[list(block.rows)]
        )
        logits: Tensor = policy.model(
            **inputs,
            attention_mask=self.cache.mask(at, block.width, policy.model.dtype),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=torch.as_tensor(columns, device=device),
        ).logits
        index = torch.as_tensor(spots.reshape(shape), device=device)
        row = torch.arange(len(block.rows), device=device)[:, None]
        return logits[row, index].flatten(0, 1)


def _picked(states: Tensor, among: Tensor | None = None) -> Tensor:
    """Logits of what are logits already."""
    return states if among is None else states[:, among]


@dataclass(frozen=True, slots=True)
class _Layout:
    """The tokens of some blocks, row behind row.

    Attributes:
        tokens: [tokens] ids.
        rows: [tokens] rows of the cache.
        positions: [tokens] places in the conversations.
        wanted: Which of these tokens something is predicted from, row behind row.
        wanted_each: For each block how many that are of each row.
    """

    tokens: NDArray[np.int64]
    rows: NDArray[np.int64]
    positions: NDArray[np.int64]
    wanted: NDArray[np.int64]
    wanted_each: list[int]


def _lay(
    blocks: Sequence[Block],
    feeds: Sequence[Feed],
    lengths: NDArray[np.int64],
    behind: int,
    pad: int,
    apart: bool,
) -> _Layout:
    """Lays the feeds of some blocks out as arrays.

    What stands for nothing is written behind the end of its row, where nothing looks; in rows that
    are not fed here, which another block may feed, behind the end of all.

    Args:
        blocks: Whose they are.
        feeds: All feeds.
        lengths: What each row of the cache holds.
        behind: The end of all rows.
        pad: The id that stands for nothing.
        apart: Guesses stand behind the longest feed, so that the columns that are wanted are few.
    """
    table: list[tuple[int, ...]] = []
    text: list[int] = []
    each: list[int] = []
    for block in blocks:
        fed = [None if i is None else feeds[i] for i in block.members]
        longest = max(len(feed.known) for feed in fed if feed is not None)
        most = max(len(feed.guessed) for feed in fed if feed is not None)
        time = longest + most if apart else block.time
        each.append(1 + most)
        for row, feed in zip(block.rows, fed, strict=True):
            if feed is None:
                table.append((row, behind, 0, 0, 0, time, 1 + most))
                continue
            n, k = len(feed.known), len(feed.guessed)
            text += feed.known
            text += feed.guessed
            start, split = int(lengths[row]), longest if apart else n
            table.append((row, start, n, k, split, time, 1 + most))
    # By row: what is known begins at column 0, what is guessed at `split`.
    row, start, n, k, split, time, count = np.asarray(table, dtype=np.int64).T
    first = time.cumsum() - time
    of = np.arange(len(row)).repeat(time)
    column = np.arange(len(of)) - first[of]
    own, guess = column - n[of], column - split[of]
    known, guessed = own < 0, (guess >= 0) & (guess < k[of])
    tokens = np.full(len(of), pad, dtype=np.int64)
    tokens[known | guessed] = text
    positions = (start + n)[of] + np.where(known, own, np.where(guessed, guess, k[of]))
    # The last that is known, and the guesses.
    of_wanted = np.arange(len(row)).repeat(count)
    number = np.arange(len(of_wanted)) - (count.cumsum() - count)[of_wanted]
    follows = (number > 0) & (number <= k[of_wanted])
    places = np.where(follows, (split - 1)[of_wanted] + number, np.maximum(n - 1, 0)[of_wanted])
    return _Layout(tokens, row[of], positions, first[of_wanted] + places, each)
