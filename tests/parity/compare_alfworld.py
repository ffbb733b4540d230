"""Play real games in the original and in the fast engine, step by step, and compare everything.

    python tests/parity/compare_alfworld.py [--short] [--games 200] [--steps 60]

Runs where the originals are installed (``make parity`` makes such an environment), on the official
games in ``$HIMAC_DATA/alfworld`` (default ``../shared/data``). Compared are the text, the
admissible commands in their order, the score and the end mark of every step, the start included,
and now and then the facts. Commands are admissible ones at random, the oracle's, and broken ones.
Half of the games is played in the old dialect. Exits with 1 at a difference.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import gymnasium as gym

import himac_envs  # noqa: F401  (registers the ids)
from himac_envs.alfworld.archive import TASK_TYPES
from himac_envs.alfworld.dialect import DIALECTS
from himac_envs.alfworld.engine import NOTHING_HAPPENS, State
from himac_envs.alfworld.facts import deeds, facts
from himac_envs.alfworld.games import OfficialLibrary, load_game, open_library
from himac_envs.alfworld.planner import NoPlanError, solve
from himac_envs.alfworld.reference import Original, in_dialect, remember_parses


def broken(command: str, rng: random.Random) -> str:
    """A command that looks like an admissible one."""
    words = command.split()
    kind = rng.randrange(8)
    if kind == 0:
        return command.upper()
    if kind == 1:
        return command.replace(" ", "  ", 1)
    if kind == 2:
        return " ".join(words[:-1])
    if kind == 3:
        return f"  {command}\n"
    if kind == 4:
        rng.shuffle(words)
        return " ".join(words)
    if kind == 5:
        return f"{' '.join(words[:-1])} {rng.randrange(40)}"
    if kind == 6:
        return rng.choice(["", "xyzzy", "put", "go to", "take from", "examine", "\x00", "look at"])
    return command.replace("move", "put").replace(" to ", " in/on ")


def choose_games(library: OfficialLibrary, number: int, rng: random.Random) -> list[str]:
    """Games of all six types in turn, half of them from valid_seen where that is possible."""
    by_type: dict[str, list[str]] = {kind: [] for kind in TASK_TYPES}
    for split in ("valid_seen", "train"):
        if library.counts()[split]:
            ids = list(library.task_ids(split))
            rng.shuffle(ids)
            for kind, found in by_type.items():
                mine = [i for i in ids if f"/{kind}-" in i]
                found += mine[: number // 12 + 1] if split == "valid_seen" else mine
    rows = zip(*by_type.values(), strict=False)
    return [task_id for row in rows for task_id in row][:number]


def compare(
    library: OfficialLibrary,
    task_id: str,
    dialect: str,
    steps: int,
    rng: random.Random,
    original: Original,
    with_facts: bool,
) -> tuple[int, list[str]]:
    """Play one game; returns the steps compared and the differences."""
    data = json.loads(library.read(task_id))
    data = in_dialect(data, DIALECTS[dialect])
    game = load_game(json.dumps(data), task_id)
    assert game.dialect.name == dialect
    state = State(game)
    original.load(data)
    differences: list[str] = []

    def check(what: str, mine: object, theirs: object) -> None:
        if mine != theirs:
            differences.append(f"{task_id}: {what}: {mine!r} instead of {theirs!r}")

    check("introduction", game.intro, original.intro)
    check("admissible at the start", state.admissible(), original.admissible())
    told: frozenset[str] = frozenset()
    plan: list[str] = []
    for step in range(steps):
        commands = state.admissible()
        lucky = rng.random()
        if lucky < 0.2:
            command = broken(rng.choice(commands), rng)
        elif lucky < 0.6 and step % 20 < 12:
            try:
                plan = solve(state)
            except NoPlanError:
                plan = []
            command = plan[0] if plan else rng.choice(commands)
        else:
            elsewhere = [c for c in commands if not c.startswith("go to")]
            command = rng.choice(elsewhere if rng.random() < 0.5 else commands)
        before = state.save()
        mine = state.act(command)
        theirs = original.act(command)
        if mine is not None:
            told = deeds(told, before, command, state)
        where = f"step {step}, {command!r}"
        check(f"{where}, text", mine or NOTHING_HAPPENS, theirs or NOTHING_HAPPENS)
        check(f"{where}, admissible", state.admissible(), original.admissible())
        check(f"{where}, score", int(state.won), original.score)
        check(f"{where}, done", state.won, original.done)
        if with_facts and step % 5 == 4:
            # Helpers that the original's translator invents, where it needs some.
            known = {fact for fact in original.facts() if not fact.startswith("new-axiom@")}
            check(f"{where}, facts", sorted(known ^ set(facts(state, told))), [])
        if len(differences) > 3:
            break
    return steps + 1, differences


def compare_backends(data: Path, seed: int) -> list[str]:
    """The same episodes through ``gym.make`` with either backend: equal observations and infos."""
    differences = []
    for settings in (
        {"data": str(data)},
        {"data": str(data), "dialect": "2.1.1"},
        {"data": "generated", "extra": ("facts", "inventory")},
    ):
        pair = [
            gym.make("HiMAC-ALFWorld-Flat-v0", backend=backend, **settings)
            for backend in ("fast", "textworld")
        ]
        answers: list[object] = [env.reset(seed=seed) for env in pair]
        commands = [*pair[1].unwrapped.oracle()][:6]
        for command in ["dance", "look", *commands, None]:
            if answers[0] != answers[1]:
                differences.append(f"{settings}: {answers[0]!r} instead of {answers[1]!r}")
                break
            if command is None:  # the end: a snapshot restored is the same place
                saved = [env.unwrapped.snapshot() for env in pair]
                for env, snapshot in zip(pair, saved, strict=True):
                    env.unwrapped.restore(snapshot)
                command = "inventory"
            answers = [env.step(command) for env in pair]
    return differences


def default_data() -> Path:
    """The official games that tests use."""
    root = Path(os.environ.get("HIMAC_DATA", "../shared/data"))
    here = Path(__file__).resolve().parents[2]
    return (root if root.is_absolute() else here / root) / "alfworld"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--short", action="store_true", help="20 games x 50 steps")
    parser.add_argument("--data", type=Path, default=default_data(), help="the official games")
    parser.add_argument("--games", type=int, default=200)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip", type=int, default=0, help="leave out the first so many games")
    parser.add_argument(
        "--untouched",
        type=int,
        default=10,
        metavar="N",
        help="let the original remember its parses after the first N games",
    )
    parser.add_argument("--report", type=Path, help="write the figures to this JSON file")
    options = parser.parse_args()
    if options.short:
        options.games, options.steps, options.untouched = 20, 50, 2
    if not options.data.exists():
        print(f"ALFWorld parity: not run, there are no official games at {options.data}")
        return 0

    library = open_library(options.data)
    rng = random.Random(options.seed)
    original = Original(facts=True)
    games = choose_games(library, options.games, rng)[options.skip :]
    total, begin = 0, time.time()
    all_differences: list[str] = []
    for number, task_id in enumerate(games):
        if number == options.untouched:
            remember_parses()
        # Changes every six games, so that each type is played in both dialects.
        dialect = "2.1.2" if number // len(TASK_TYPES) % 2 == 0 else "2.1.1"
        steps, differences = compare(
            library, task_id, dialect, options.steps, rng, original, with_facts=True
        )
        total += steps
        all_differences += differences
        for difference in differences:
            print(difference[:2000])
        if number % 10 == 9:
            print(f"{number + 1} games, {total} steps, {time.time() - begin:.0f} s", flush=True)
    if not options.skip:
        for difference in compare_backends(options.data, options.seed):
            print(difference[:2000])
            all_differences.append(difference)
    figures = {
        "games": len(games),
        "steps": total,
        "differences": len(all_differences),
        "untouched_games": min(options.untouched, len(games)),
        "seconds": round(time.time() - begin),
    }
    print(f"ALFWorld parity: {figures}")
    if options.report:
        options.report.write_text(json.dumps(figures) + "\n")
    return 1 if all_differences else 0


if __name__ == "__main__":
    sys.exit(main())
