"""Play exported games in the original ALFWorld and record what it answers.

Runs in the environment of the originals (``make parity`` makes it), and imports nothing of this
project: the games come as files, written by `himac_envs.alfworld.generate.export_game`.

    python record_generated.py GAMES_FOLDER OUT.jsonl.gz [--steps 30]

One game a line: ``task_id``, ``steps`` (``a``: command, null at reset; ``obs``; ``adm``: admissible
commands in order; ``score``; ``done``).
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import sys
import time
from pathlib import Path
from typing import Any

BROKEN = [
    "",
    "fly away",
    "go to",
    "take",
    "open fridge",
    "LOOK",
    "look ",
    " inventory",
    "go to nowhere 1",
]


def next_command(rng: random.Random, admissible: list[str], walkthrough: list[str]) -> str:
    """Choose among the walkthrough's next command, an admissible one and a broken one."""
    draw = rng.random()
    if draw < 0.12:
        broken = list(BROKEN)
        some = rng.choice(admissible)
        broken += [
            some.upper(),
            some + " 1",
            some.replace(" 1", " 99"),
            some.replace(" to ", " in/on "),
        ]
        return rng.choice(broken)
    if walkthrough and draw < 0.55:
        return walkthrough.pop(0)
    # One command of a verb drawn first: `go to` would drown the others.
    verbs: dict[str, list[str]] = {}
    for command in admissible:
        verbs.setdefault(command.split()[0], []).append(command)
    return rng.choice(verbs[rng.choice(sorted(verbs))])


def answer(command: str | None, state: Any, score: int, done: bool) -> dict[str, Any]:
    """Return one recorded step."""
    listed = list(state["admissible_commands"])
    return {"a": command, "obs": state.feedback, "adm": listed, "score": score, "done": done}


def play(env: Any, path: Path, steps: int, seed: int) -> dict[str, Any]:
    """Record one game: the walkthrough's commands with others between them."""
    game = json.loads(path.read_text())
    name = json.loads((path.parent / "traj_data.json").read_text())["task_id"]
    task_id = re.sub(r"^trial_generated_(\w+)_(\d{6})$", r"generated/\1/\2", name)
    rng = random.Random(seed)
    # Every second game: the walkthrough alone first, so that wins and what follows are recorded.
    straight = seed % 2 == 0
    walkthrough = list(game["walkthrough"])
    env.load(str(path))
    state = env.reset()
    rows = [answer(None, state, 0, False)]
    for _ in range(steps):
        if straight and walkthrough:
            command = walkthrough.pop(0)
        else:
            command = next_command(rng, rows[-1]["adm"], walkthrough)
        state, score, done = env.step(command)
        rows.append(answer(command, state, score, done))
    return {"task_id": task_id, "steps": rows}


def main() -> None:
    """Record every game of a folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("games", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=30)
    args = parser.parse_args()

    import textworld
    from alfworld.agents.environment.alfred_tw_env import AlfredDemangler, AlfredInfos
    from textworld.envs import PddlEnv

    infos = textworld.EnvInfos(admissible_commands=True, won=True, feedback=True)
    paths = sorted(args.games.rglob("game.tw-pddl"))
    begun = time.time()
    lines = []
    wins = compared = 0
    for number, path in enumerate(paths):
        env = AlfredInfos(AlfredDemangler(PddlEnv(infos), shuffle=False))
        record = play(env, path, args.steps, number)
        wins += any(row["done"] for row in record["steps"])
        compared += len(record["steps"])
        lines.append(json.dumps(record, separators=(",", ":")))
        print(
            f"{number + 1}/{len(paths)} {record['task_id']} {time.time() - begun:.0f} s",
            file=sys.stderr,
        )
    with open(args.out, "wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as file:
        file.write(("\n".join(lines) + "\n").encode())
    print(f"{len(lines)} games, {compared} observations, {wins} won")


if __name__ == "__main__":
    main()
