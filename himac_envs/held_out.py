"""How much of the held-out splits is also in training: a table, by several meanings of "same".

    python -m himac_envs.held_out [sokoban] [alfworld] [webshop] [--data FOLDER]

Without names, all three. Generated tasks are compared, and the official ones that FOLDER holds (as
FOLDER/alfworld and FOLDER/webshop). Each line says which share of a split's tasks is among those of
the training split.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from himac_envs import registry

#: What is the same, in words -> the forms of a split's tasks, in order.
Forms = Mapping[str, Sequence[Hashable]]
#: Sizes of generated Sokoban rooms that are compared, and rooms of each split.
SOKOBAN_SIZES = (((6, 6), 1), ((6, 6), 2), ((7, 7), 2), ((10, 10), 3))
SOKOBAN_ROOMS = {"train": 20_000, "valid": 5_000, "test": 5_000}


@dataclass(frozen=True)
class Overlap:
    """One line of the table.

    Attributes:
        data: Which tasks.
        what: What is called the same.
        split: The split that is held out.
        tasks: How many tasks of it were looked at.
        among: Among how many training tasks they were looked for.
        shared: How many were found there.
    """

    data: str
    what: str
    split: str
    tasks: int
    among: int
    shared: int

    @property
    def share(self) -> float:
        """Share of the tasks that were found."""
        return self.shared / self.tasks if self.tasks else 0.0


def compare(data: str, splits: Mapping[str, Forms]) -> list[Overlap]:
    """Look for each split's tasks among those of the first.

    Args:
        data: What the tasks are called.
        splits: Split -> what is the same -> the forms of its tasks; "train" comes first.
    """
    train, *others = splits
    found = []
    for what, forms in splits[train].items():
        seen: set[Hashable] = set(forms)
        for name in others:
            held = splits[name][what]
            shared = sum(form in seen for form in held)
            found.append(Overlap(data, what, name, len(held), len(forms), shared))
    return found


# ---- Sokoban -----------------------------------------------------------------------------------


def canonical_rooms(rooms: Iterable[bytes], rows: int, cols: int) -> list[bytes]:
    """The smallest of each room's symmetries, as bytes.

    Args:
        rooms: One code a cell.
        rows: Height.
        cols: Width; rooms that are not square have four symmetries of their own shape.
    """
    found = []
    for room in rooms:
        grid = np.frombuffer(room, np.uint8).reshape(rows, cols)
        forms = [np.rot90(side, k) for side in (grid, grid[::-1]) for k in range(4)]
        found.append(min(f.tobytes() for f in forms if f.shape == (rows, cols)))
    return found


def sokoban_forms(env: Any, ids: Sequence[str]) -> Forms:
    """Rooms with all their pieces, and floor plans, of generated rooms up to symmetry."""
    source = env.source
    fixed, state = source.arrays([source.number(task_id) for task_id in ids])
    whole = state * np.uint8(8) + fixed
    shape = source.rows, source.cols
    return {
        "room": canonical_rooms([room.tobytes() for room in whole], *shape),
        "floor plan": canonical_rooms([room.tobytes() for room in fixed], *shape),
    }


def _sokoban(data: Path | None) -> Iterator[Overlap]:
    for generator in ("fast", "gym-sokoban", "verl-agent"):
        for room, boxes in SOKOBAN_SIZES if generator == "fast" else SOKOBAN_SIZES[:1]:
            # "all" names no split, so that nobody is warned: this is the measurement itself.
            kwargs = {"split": "all", "room": room, "boxes": boxes, "generator": generator}
            env: Any = registry.make("HiMAC-Sokoban-Flat-v0", **kwargs).unwrapped
            counts = SOKOBAN_ROOMS if generator == "fast" else dict.fromkeys(SOKOBAN_ROOMS, 2_000)
            splits = {s: sokoban_forms(env, env.task_ids(s)[:n]) for s, n in counts.items()}
            yield from compare(f"Sokoban, {generator}, {room[0]}x{room[1]}/{boxes}", splits)


# ---- ALFWorld ----------------------------------------------------------------------------------


def _alfworld(data: Path | None) -> Iterator[Overlap]:
    from himac_envs.alfworld.generate import SPLIT_SIZES, generate_world

    splits: dict[str, Forms] = {}
    for split, size in SPLIT_SIZES.items():
        worlds = [generate_world(split, i) for i in range(size)]
        splits[split] = {
            "world and goal": [(w.room, w.receptacles, w.things, w.goals) for w in worlds],
            "room": [(w.room, w.receptacles) for w in worlds],
            "instruction": [w.goal_text for w in worlds],
        }
    yield from compare("ALFWorld, generated", splits)
    if data is None:
        return
    from himac_envs.alfworld.games import open_library

    library = open_library(data / "alfworld")
    splits = {}
    counts = library.counts()
    for split in filter(counts.get, ("train", "valid_seen", "valid_unseen")):
        folders = [task_id.split("/")[1] for task_id in library.task_ids(split)]
        parts = [folder.split("-") for folder in folders]
        splits[split] = {
            "kind, objects and scene": folders,
            "scene": [part[-1] for part in parts],
            "kind and objects": [tuple(part[:-1]) for part in parts],
        }
    yield from compare("ALFWorld, official", splits)


# ---- WebShop -----------------------------------------------------------------------------------


def webshop_forms(env: Any, ids: Iterable[str]) -> Forms:
    """Goals, instructions with and without their price limit, and products."""
    from himac_envs.webshop.goals import without_limit

    goals = [env.goals[int(task_id)] for task_id in ids]
    return {
        "product and options": [(g.asin, g.option_values()) for g in goals],
        "instruction": [g.instruction_text for g in goals],
        "instruction, price limit left out": [without_limit(g.instruction_text) for g in goals],
        "product": [g.asin for g in goals],
    }


def _webshop(data: Path | None) -> Iterator[Overlap]:
    for name, place in (("generated", "generated"), ("official, 1,000 products", data)):
        if place is None:
            continue
        where = place if isinstance(place, str) else str(place / "webshop")
        env: Any = registry.make("HiMAC-WebShop-Flat-v0", data=where).unwrapped
        splits = {s: webshop_forms(env, env.task_ids(s)) for s in ("train", "valid", "test")}
        yield from compare(f"WebShop, {name}", splits)


BENCHMARKS: Mapping[str, Callable[[Path | None], Iterator[Overlap]]] = {
    "sokoban": _sokoban,
    "alfworld": _alfworld,
    "webshop": _webshop,
}


def table(found: Iterable[Overlap]) -> str:
    """A Markdown table."""
    lines = [
        "| tasks | the same | split | of | among | found there |",
        "|---|---|---|---|---|---|",
    ]
    for row in found:
        lines.append(
            f"| {row.data} | {row.what} | {row.split} | {row.tasks:,} | {row.among:,} | "
            f"{100 * row.share:.1f}% |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("benchmarks", nargs="*", help=f"of {', '.join(BENCHMARKS)} (all)")
    parser.add_argument("--data", type=Path, help="a folder that holds alfworld/ and webshop/")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.benchmarks if name not in BENCHMARKS]
    if unknown:
        parser.error(f"{unknown[0]!r}: choose among {', '.join(BENCHMARKS)}")
    chosen = options.benchmarks or list(BENCHMARKS)
    print(table(row for name in chosen for row in BENCHMARKS[name](options.data)))


if __name__ == "__main__":
    main()
