"""A key-value cache with one row a conversation, kept from turn to turn.

A text game is played in turns: a few observation tokens are read, a few action tokens are written.
Reading the whole transcript again each turn costs time that grows with its square. Here each
conversation owns a *slot*; a turn feeds only the tokens that its row does not hold yet, and a row
is cropped to the longest prefix it shares with the new prompt. So a new sub-goal, whose prompt
begins with the same room but continues differently, keeps the shared beginning and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from himac_agents.policies.generation.costs import Block
from himac_agents.policies.generation.draft import Draft


class SlotCache:
    """Keys and values of many conversations, ragged in length, in one buffer a layer.

    It stands where transformers expects a `past_key_values`: attention layers call `update`.
    Row r holds the keys of its tokens at positions 0 .. length-1; what lies behind is never
    attended to, so that padding may be written there freely. A row's used part is one stretch of
    memory, keys and values of a position beside each other: rows are picked in one large copy.
    """

    is_compileable = False

    def __init__(self) -> None:
        self.tokens: dict[int, list[int]] = {}
        self.row_of: dict[int, int] = {}
        # A layer's buffer [rows, positions, width]: a position's keys, then its values.
        self._buffers: list[Tensor] = []
        self._shapes: list[tuple[tuple[int, int], tuple[int, int]]] = []
        self._picked = torch.empty(0)
        self._capacity = 0
        self._positions: Tensor | None = None
        self._places = self._at = torch.empty(0)
        self._places_of = -1
        self._seen: list[Tensor | slice] = []
        self._widths: list[int] = []
        self._band = torch.empty(0)
        #: The place behind the last that the pass under way writes.
        self.reach = 0
        #: What these conversations' answers were, as a guess of those to come.
        self.draft = Draft()

    # -- bookkeeping of rows ---------------------------------------------------------------------

    def clear(self) -> None:
        """Forgets everything. To be called whenever the model's weights change."""
        self.__init__()  # type: ignore[misc]

    def shared_prefix(self, slot: int, ids: Sequence[int]) -> int:
        """How many leading tokens of `ids` the slot holds; one at least is left to feed."""
        held = self.tokens.get(slot)
        if not held:
            return 0
        limit = min(len(held), len(ids) - 1)
        if list(ids[:limit]) == held[:limit]:
            return limit
        return next(i for i in range(limit) if held[i] != ids[i])

    def seat(self, slots: Sequence[int]) -> list[int]:
        """Gives each slot a row, returns the rows, and drops rows of slots no longer in use.

        Rows of other slots stay while they are fewer than the asked ones: they may come back, and
        moving memory costs more than carrying them.
        """
        if len(slots) * 2 < len(self.row_of):
            keep = [slot for slot in slots if slot in self.row_of]
            index = torch.tensor([self.row_of[slot] for slot in keep], dtype=torch.long)
            self._buffers = [buffer[index.to(buffer.device)] for buffer in self._buffers]
            self.row_of = {slot: row for row, slot in enumerate(keep)}
            self.tokens = {slot: self.tokens[slot] for slot in keep}
        for slot in slots:
            if slot not in self.row_of:
                self.row_of[slot] = len(self.row_of)
                self.tokens[slot] = []
        return [self.row_of[slot] for slot in slots]

    @property
    def rows(self) -> int:
        """Rows in use."""
        return len(self.row_of)

    def reserve(self, positions: int) -> None:
        """Makes room for so many positions a row, and for more: growing copies everything."""
        if positions > self._capacity:
            self._capacity = max(positions + 32, int(self._capacity * 1.5))

    # -- one forward pass ------------------------------------------------------------------------

    def aim(self, blocks: Sequence[Block], rows: Tensor, positions: Tensor, reach: int) -> None:
        """Says where the next forward pass writes, and what it sees.

        Args:
            blocks: What is read.
            rows: The row of each token: of the shape of `positions`, or [batch, 1].
            positions: Where each token is written, [tokens] or [batch, time].
            reach: The place behind the last of them.
        """
        device = positions.device
        self._places, self._positions, self._places_of = rows, positions, -1
        self._seen = [
            torch.tensor(block.rows, device=device)
            if block.picked
            else slice(block.rows[0], block.rows[-1] + 1)
            for block in blocks
        ]
        self._widths = [block.width for block in blocks]
        self.reach = reach
        self.reserve(reach)

    def mask(self, at: Tensor, width: int, dtype: torch.dtype) -> Tensor:
        """What is added to attention scores, [batch, 1, time, width], of tokens at [batch, time].

        It is 0 up to a token's own place, and the type's least number behind.
        """
        most = max(self._capacity, width)
        band = self._band
        if len(band) < 2 * most or band.dtype != dtype or band.device != at.device:
            band = self._band = torch.zeros(2 * most, dtype=dtype, device=at.device)
            band[most:] = torch.finfo(dtype).min
        # A token's row is a stretch of the band: the earlier its place, the later it begins.
        most = len(band) // 2
        return band.as_strided((most, width), (1, 1))[most - 1 - at][:, None]

    def _fit(self, buffer: Tensor) -> Tensor:
        rows = max(self.rows, int(buffer.shape[0]))
        if buffer.shape[0] >= rows and buffer.shape[1] >= self._capacity:
            return buffer
        grown = buffer.new_zeros((rows, self._capacity, *buffer.shape[2:]))
        grown[: buffer.shape[0], : buffer.shape[1]] = buffer
        return grown

    def update(
        self, key: Tensor, value: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Stores new keys and values [batch, heads, time, dim]; returns all that are to be seen."""
        pair = key.transpose(1, 2), value.transpose(1, 2)
        shapes = [(int(part.shape[2]), int(part.shape[3])) for part in pair]
        both = torch.cat([part.flatten(0, 1).flatten(1) for part in pair], dim=-1)
        self.store(both, (shapes[0], shapes[1]), layer_idx)
        keys, values = self.seen(0, layer_idx)
        return keys.transpose(1, 2), values.transpose(1, 2)

    def store(
        self, both: Tensor, shapes: tuple[tuple[int, int], tuple[int, int]], layer_idx: int
    ) -> None:
        """Stores new keys and values.

        Args:
            both: [tokens, width], the keys of all heads, then the values.
            shapes: (heads, dim) of keys and of values.
            layer_idx: The layer.
        """
        assert self._positions is not None, "aim() must be called before a forward pass"
        if layer_idx == len(self._buffers):
            self._buffers.append(both.new_zeros((self.rows, self._capacity, both.shape[-1])))
            self._shapes.append(shapes)
        buffer = self._buffers[layer_idx] = self._fit(self._buffers[layer_idx])
        # Whole rows of memory, copied one by one: an index of two axes is ten times as slow.
        buffer.flatten(0, 1).index_copy_(0, self._flat(buffer), both)

    def _flat(self, buffer: Tensor) -> Tensor:
        """Where the pass under way writes, among all positions of all rows."""
        assert self._positions is not None
        if self._places_of != buffer.shape[1]:
            self._places_of = buffer.shape[1]
            self._at = (self._places * self._places_of + self._positions).flatten()
        return self._at

    def seen(self, block: int, layer_idx: int) -> tuple[Tensor, Tensor]:
        """What the rows of a block of this pass see: keys and values [rows, width, heads, dim].

        Rows beside each other are a view. Others are a copy, which holds until the next call.
        """
        rows, buffer = self._seen[block], self._buffers[layer_idx][:, : self._widths[block]]
        found = buffer[rows] if isinstance(rows, slice) else self._pick(buffer, rows)
        (heads, dim), others = self._shapes[layer_idx]
        keys, values = found[..., : heads * dim], found[..., heads * dim :]
        shape = found.shape[:2]
        return keys.view(*shape, heads, dim), values.view(*shape, *others)

    def _pick(self, seen: Tensor, rows: Tensor) -> Tensor:
        """Rows copied into memory that all layers and passes share.

        Fresh memory for each copy would cost more than the copy.
        """
        shape = (len(rows), *seen.shape[1:])
        size = math.prod(shape)
        held = self._picked
        if held.numel() < size or held.dtype != seen.dtype or held.device != seen.device:
            held = self._picked = seen.new_empty(size * 5 // 4)
        return torch.index_select(seen, 0, rows, out=held[:size].view(shape))

    def lend(self, loans: Sequence[tuple[int, int, int, int]]) -> None:
        """Copies what rows hold into other rows, as if those had read it themselves.

        Args:
            loans: (from row, to row, first position, the position behind the last); all are made
                at once, so that a row may give what it is about to lose.
        """
        if not loans or not self._buffers:
            return
        device = self._buffers[0].device
        givers, takers, places = (
            torch.cat(parts).to(device)
            for parts in zip(
                *(
                    (torch.full((b - a,), x), torch.full((b - a,), y), torch.arange(a, b))
                    for x, y, a, b in loans
                ),
                strict=True,
            )
        )
        for number, buffer in enumerate(self._buffers):
            buffer = self._buffers[number] = self._fit(buffer)
            flat, wide = buffer.flatten(0, 1), buffer.shape[1]
            flat.index_copy_(0, takers * wide + places, flat[givers * wide + places])

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Part of transformers' cache interface; positions are always given, so 0 is never used."""
        return 0
