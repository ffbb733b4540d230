"""A stand-in for TransferQueue's store of rows, in this process: its routes, and no Ray."""

from __future__ import annotations

from typing import Any

import torch
import transfer_queue as tq
from transfer_queue import KVBatchMeta
from verl.utils.tensordict_utils import list_of_dict_to_tensordict


class Store:
    """What is kept, by partition and key.

    Attributes:
        rows: The fields of each.
        tags: Their tags.
    """

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, dict[str, Any]]] = {"train": {}, "val": {}}
        self.tags: dict[str, dict[str, dict[str, Any]]] = {"train": {}, "val": {}}

    def put(
        self, keys: Any, partition_id: str, fields: Any = None, tags: Any = None, **_: Any
    ) -> KVBatchMeta:
        """See `transfer_queue.kv_batch_put`."""
        rows, kept = self.rows[partition_id], self.tags[partition_id]
        for number, key in enumerate(keys):
            kept.setdefault(key, {})
            if tags is not None:
                kept[key] |= tags[number]
        for name in () if fields is None else fields.keys():
            column = fields.get(name)
            nested = isinstance(column, torch.Tensor) and column.is_nested
            values = list(column.unbind()) if nested else [column[i] for i in range(len(keys))]
            for key, value in zip(keys, values, strict=True):
                rows.setdefault(key, {})[name] = getattr(value, "data", value)
        return KVBatchMeta(keys=list(keys), tags=[kept[k] for k in keys], partition_id=partition_id)

    def get(self, keys: Any, partition_id: str, select_fields: Any = None) -> Any:
        """See `transfer_queue.kv_batch_get`: of the fields that are asked for, those there are."""
        rows = [self.rows[partition_id][key] for key in keys]
        wanted = list(rows[0]) if select_fields is None else select_fields
        return list_of_dict_to_tensordict([{n: r[n] for n in wanted if n in r} for r in rows])

    def clear(self, keys: Any, partition_id: str) -> None:
        """See `transfer_queue.kv_clear`."""
        for key in keys:
            self.rows[partition_id].pop(key, None)
            del self.tags[partition_id][key]

    def all(self, partition_id: str | None = None) -> Any:
        """See `transfer_queue.kv_list`."""
        return {name: dict(tags) for name, tags in self.tags.items()}

    def install(self, monkeypatch: Any) -> None:
        """Puts it in the place of TransferQueue's routes."""

        async def put_one(key: str, partition_id: str, tag: Any = None, **_: Any) -> Any:
            return self.put([key], partition_id, None, [tag])

        async def put_many(**how: Any) -> Any:
            return self.put(**how)

        for name, route in {
            "kv_batch_put": self.put, "kv_batch_get": self.get, "kv_clear": self.clear,
            "kv_list": self.all, "async_kv_put": put_one, "async_kv_batch_put": put_many,
            "init": lambda *_: None,
        }.items():  # fmt: skip
            monkeypatch.setattr(tq, name, route)
