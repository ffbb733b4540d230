"""Statistics of the generated games and of the official ones, in one table.

    python -m himac_envs.alfworld.generate.distribution --data FOLDER [--games 600]

FOLDER holds the official archives. The official games are an even sample of the training split;
solutions are the expert's for both sides.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, pstdev

from himac_envs.alfworld.archive import TASK_TYPES
from himac_envs.alfworld.engine import Game, State
from himac_envs.alfworld.facts import task_type
from himac_envs.alfworld.generate.controls import DEFAULT, REAL, Controls
from himac_envs.alfworld.generate.games import generate_game
from himac_envs.alfworld.planner import solve


@dataclass(frozen=True)
class Sample:
    """One game's figures.

    Attributes:
        task_type: One of the six, or "several".
        receptacles: Number of receptacles that can be gone to.
        shared: Percent of them that share their spot with another.
        doors: Percent of them that open and close.
        objects: Number of objects that lie in or on a receptacle.
        behind: Percent of the objects that are behind a door at the start.
        solution: Commands of the expert's solution.
    """

    task_type: str
    receptacles: int
    shared: float
    doors: float
    objects: int
    behind: float
    solution: int


def measure(game: Game) -> Sample:
    """Return a game's figures."""
    state = State(game)
    stand = [r for r, spot in enumerate(game.location_of) if spot >= 0]
    shared = sum(len(game.at[game.location_of[r]]) > 1 for r in stand)
    doors = [r for r in stand if game.openable >> r & 1]
    everywhere = behind = 0
    for r, contents in enumerate(state.contents):
        everywhere |= contents
        if r in doors:
            behind |= contents
    objects = everywhere.bit_count()
    return Sample(
        task_type(game),
        len(stand),
        100 * shared / len(stand),
        100 * len(doors) / len(stand),
        objects,
        100 * behind.bit_count() / max(objects, 1),
        len(solve(state)),
    )


def official_games(data: Path | str, games: int) -> Iterator[Game]:
    """Yield an even sample of the official training games."""
    from himac_envs.alfworld.games import open_library

    library = open_library(data)
    ids = library.task_ids("train")
    for i in range(min(games, len(ids))):
        yield library.game(ids[i * len(ids) // min(games, len(ids))])


def generated_games(games: int, controls: Controls) -> Iterator[Game]:
    """Yield the first generated training games."""
    for i in range(games):
        yield generate_game("train", i, controls=controls)


def table(sources: Sequence[tuple[str, Iterable[Sample]]]) -> str:
    """Return a Markdown table, one row for each task type and source; means and deviations."""
    by_type: dict[str, dict[str, list[Sample]]] = {}
    for name, samples in sources:
        groups: defaultdict[str, list[Sample]] = defaultdict(list)
        for sample in samples:
            groups["all"].append(sample)
            groups[sample.task_type].append(sample)
        by_type[name] = dict(groups)
    lines = [
        "| task | games | share | receptacles | share a spot | have doors | objects | behind doors "
        "| solution |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for kind in ("all", *TASK_TYPES, "several"):
        for name, found in by_type.items():
            rows = found.get(kind, [])
            if rows:
                lines.append(_row(kind, name, rows, len(found["all"])))
    return "\n".join(lines)


def _row(kind: str, name: str, rows: Sequence[Sample], total: int) -> str:
    def spread(values: Sequence[float], unit: str = "") -> str:
        return f"{mean(values):.1f}{unit} ± {pstdev(values):.1f}"

    cells = [
        kind,
        name,
        f"{100 * len(rows) / total:.0f}%",
        spread([row.receptacles for row in rows]),
        f"{mean(row.shared for row in rows):.0f}%",
        f"{mean(row.doors for row in rows):.0f}%",
        spread([row.objects for row in rows]),
        f"{mean(row.behind for row in rows):.0f}%",
        spread([row.solution for row in rows]),
    ]
    return f"| {' | '.join(cells)} |"


def compare(data: Path | str, games: int = 600) -> str:
    """Return the table: official games, generated ones like them, and the default ones.

    Args:
        data: The folder of the official archives.
        games: How many games of each.
    """
    sources = [
        ("official", official_games(data, games)),
        ("generated, REAL", generated_games(games, REAL)),
        ("generated, DEFAULT", generated_games(games, DEFAULT)),
    ]
    return table([(name, [measure(game) for game in drawn]) for name, drawn in sources])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the official archives")
    parser.add_argument("--games", type=int, default=600, help="games of each kind")
    options = parser.parse_args(arguments)
    print(compare(options.data, options.games))


if __name__ == "__main__":
    main()
