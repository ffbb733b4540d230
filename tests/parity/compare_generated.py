"""Export generated games, play them in the original and in the fast engine, compare everything.

    python tests/parity/compare_generated.py [--short] [--record tests/golden]

Runs where the originals are installed (``make parity`` makes such an environment). The original's
own loader must find every exported game; then text, admissible commands in their order, score and
end mark are compared at every step. Commands are those of the solution, admissible ones at random,
and broken ones; then the expert plays on until the game is won, in both. Exits with 1 at a
difference, or when a game is not won. ``--record`` writes what the original answered, for
``tests/golden/test_alfworld_generated.py``, which needs no original.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from itertools import count
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from himac_envs.alfworld.engine import NOTHING_HAPPENS, State
from himac_envs.alfworld.games import load_game
from himac_envs.alfworld.generate import (
    DEFAULT,
    Controls,
    generate_world,
    long_horizon,
    make_game,
    solution,
)
from himac_envs.alfworld.generate.export import export_game, find_logic
from himac_envs.alfworld.planner import solve
from himac_envs.alfworld.reference import Original, remember_parses

SETS: dict[str, tuple[Controls, int, int]] = {
    "default": (DEFAULT, 60, 30),
    "long": (long_horizon(100), 16, 45),
}
"""Games to play: their difficulty, how many (of the test split), and commands in each."""

BROKEN = (
    "",
    "fly away",
    "go to",
    "take",
    "open fridge",
    "LOOK",
    "look ",
    " inventory",
    "go to x 1",
)


def choose(rng: random.Random, commands: list[str], plan: list[str], straight: bool) -> str:
    """Choose the next command: of the solution, broken, or an admissible one at random."""
    draw = rng.random()
    if straight and plan:
        return plan.pop(0)
    if draw < 0.12:
        some = rng.choice(commands)
        bent = (
            some.upper(),
            f"{some} 1",
            some.replace(" 1", " 99"),
            some.replace(" to ", " in/on "),
        )
        return rng.choice(BROKEN + bent)
    if plan and draw < 0.55:
        return plan.pop(0)
    # The verb first: else `go to` would drown the others.
    verbs: dict[str, list[str]] = {}
    for command in commands:
        verbs.setdefault(command.split()[0], []).append(command)
    return rng.choice(verbs[rng.choice(sorted(verbs))])


def play(path: Path, number: int, controls: Controls, steps: int) -> tuple[Any, list[str]]:
    """Play one game in both; returns the record of the original and the differences."""
    world = generate_world("test", number, controls=controls)
    data = json.loads(path.read_text(encoding="utf-8"))
    original = Original()
    original.load(data)
    # Twice here: as generated, and as read from the exported file.
    states = [State(make_game(world)), State(load_game(json.dumps(data), world.task_id))]
    rng = random.Random(number)
    plan, straight = solution(world), number % 2 == 0
    rows: list[dict[str, Any]] = []
    differences: list[str] = []
    # As many commands as asked for, then those of the expert, until the game is won.
    for step in count():
        if step == 0:
            command = None
        elif step <= steps:
            command = choose(rng, states[0].admissible(), plan, straight)
        elif states[0].won:
            break
        else:
            command = solve(states[0])[0]
        theirs = original.intro if command is None else original.act(command)
        row = {
            "a": command,
            "obs": NOTHING_HAPPENS if theirs is None else theirs,
            "adm": original.admissible(),
            "score": 0 if command is None else original.score,
            "done": False if command is None else original.done,
        }
        rows.append(row)
        for state in states:
            mine = state.game.intro if command is None else state.act(command)
            seen = {
                "obs": NOTHING_HAPPENS if mine is None else mine,
                "adm": state.admissible(),
                "score": int(state.won),
                "done": state.won,
            }
            differences += [
                f"{world.task_id} step {step} {command!r}: {key} {seen[key]!r}, not {row[key]!r}"
                for key in seen
                if seen[key] != row[key]
            ]
    return {"task_id": world.task_id, "steps": rows}, differences


def found_by_the_original(folder: Path) -> int:
    """Return how many games alfworld's own loader finds in a data folder."""
    os.environ.setdefault("ALFWORLD_DATA", str(folder))
    from alfworld.agents.environment.alfred_tw_env import AlfredTWEnv

    config = {
        "env": {
            "goal_desc_human_anns_prob": 0.0,
            "task_types": [1, 2, 3, 4, 5, 6],
        },
        "dataset": {"eval_ood_data_path": str(folder / "valid_unseen"), "num_eval_games": -1},
    }
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        return int(AlfredTWEnv(config, train_eval="eval_out_of_distribution").num_games)


def main() -> int:
    """Play every set; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--short", action="store_true", help="a tenth of the games")
    parser.add_argument("--record", type=Path, metavar="FOLDER", help="write the traces there")
    parser.add_argument("--games", type=int, help="games of each set, instead of its own number")
    parser.add_argument(
        "--untouched",
        type=int,
        default=6,
        metavar="N",
        help="let the original remember its parses after the first N games",
    )
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS))
    options = parser.parse_args()
    logic = find_logic()
    begun = time.time()
    failed = 0
    played = 0
    for name in options.sets:
        controls, games, steps = SETS[name]
        if options.short:
            games = max(2, games // 10)
        games = options.games or games
        differences: list[str] = []
        records: list[Any] = []
        verbs: Counter[str] = Counter()
        with tempfile.TemporaryDirectory() as scratch:
            paths = [
                export_game(f"generated/test/{i:06d}", scratch, controls=controls, logic=logic)
                for i in range(games)
            ]
            found = found_by_the_original(Path(scratch))
            if found != games:
                differences.append(f"the original's loader finds {found} of {games} games")
            for number, path in enumerate(paths):
                if played == options.untouched:
                    remember_parses()
                played += 1
                record, wrong = play(path, number, controls, steps)
                records.append(record)
                differences += wrong
                verbs.update((row["a"] or "").split(" ")[0] for row in record["steps"])
                if number % 10 == 9:
                    print(f"{name}: {number + 1} games, {time.time() - begun:.0f} s", flush=True)
        won = sum(bool(record["steps"][-1]["done"]) for record in records)
        if won != games:
            differences.append(f"the original says that only {won} of {games} games are won")
        compared = sum(len(record["steps"]) for record in records)
        for difference in differences[:10]:
            print(difference[:2000])
        print(
            f"generated games ({name}): {games} games found and played by the original, "
            f"{compared} steps compared, {won} won by the expert, {len(differences)} differences"
        )
        print("  commands: " + ", ".join(f"{verb} {n}" for verb, n in verbs.most_common(14)))
        failed += len(differences)
        if options.record is not None:
            write(options.record / f"alfworld_generated_{name}.jsonl.gz", records)
    return 1 if failed else 0


def write(path: Path, records: list[Any]) -> None:
    """Write traces, one game a line; the same traces give the same file."""
    lines = "\n".join(json.dumps(record, separators=(",", ":")) for record in records) + "\n"
    beside = path.with_suffix(".tmp")
    with open(beside, "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as file:
        file.write(lines.encode())
    os.replace(beside, path)


if __name__ == "__main__":
    sys.exit(main())
