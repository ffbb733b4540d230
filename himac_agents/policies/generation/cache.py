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

from himac_agents.policies.generation.draft import Draft


class SlotCache:
    """Keys and values of many conversations, ragged in length, in one buffer a layer.

    It stands where transformers expects a `past_key_values`: attention layers call `update`.
    Row r holds the keys of its tokens at positions 0 .. length-1; what lies behind is never
    attended to, so that padding may be written there freely. Buffers are [rows, positions, heads,
    dim]: a row's used part is one stretch of memory, so that picking rows is a few large copies.
    """

    is_compileable = False

    def __init__(self) -> None:
        self.tokens: dict[int, list[int]] = {}
        self.row_of: dict[int, int] = {}
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self._picked: dict[str, Tensor] = {}
        self._capacity = 0
        self._rows: Tensor | None = None
        self._positions: Tensor | None = None
        self._places = torch.empty(0)
        self._band = torch.empty(0)
        self.width = 0
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
            self._keys = [k[index.to(k.device)] for k in self._keys]
            self._values = [v[index.to(v.device)] for v in self._values]
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

    def aim(self, rows: Tensor | None, positions: Tensor, width: int) -> None:
        """Says where the next forward pass writes.

        Args:
            rows: Row of each sequence of the batch; None means rows 0 .. batch-1, which is read
                without a copy.
            positions: [batch, time] positions to write.
            width: Number of key positions that attention will see.
        """
        self._rows, self._positions, self.width = rows, positions, width
        if rows is None:
            rows = torch.arange(positions.shape[0], device=positions.device)
        self._places = rows[:, None]
        self.reserve(max(width, int(positions.max()) + 1))

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
        keys, values = self.store(key.transpose(1, 2), value.transpose(1, 2), layer_idx)
        return keys.transpose(1, 2), values.transpose(1, 2)

    def store(self, key: Tensor, value: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        """`update` for tensors [batch, time, heads, dim].

        What it returns holds until the next call.
        """
        assert self._positions is not None, "aim() must be called before a forward pass"
        if layer_idx == len(self._keys):
            shape = (self.rows, self._capacity, *key.shape[2:])
            self._keys.append(key.new_zeros(shape))
            self._values.append(value.new_zeros(shape))
        keys = self._keys[layer_idx] = self._fit(self._keys[layer_idx])
        values = self._values[layer_idx] = self._fit(self._values[layer_idx])
        keys[self._places, self._positions] = key
        values[self._places, self._positions] = value
        seen_keys, seen_values = keys[:, : self.width], values[:, : self.width]
        if self._rows is None:
            return seen_keys[: key.shape[0]], seen_values[: key.shape[0]]
        return self._pick(seen_keys, "keys"), self._pick(seen_values, "values")

    def _pick(self, seen: Tensor, name: str) -> Tensor:
        """The rows that take part, copied into memory that all layers and passes share.

        Fresh memory for each copy would cost more than the copy.
        """
        assert self._rows is not None
        shape = (len(self._rows), *seen.shape[1:])
        size = math.prod(shape)
        held = self._picked.get(name)
        if held is None or held.numel() < size or held.dtype != seen.dtype:
            held = self._picked[name] = seen.new_empty(size * 5 // 4)
        return torch.index_select(seen, 0, self._rows, out=held[:size].view(shape))

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Part of transformers' cache interface; positions are always given, so 0 is never used."""
        return 0
