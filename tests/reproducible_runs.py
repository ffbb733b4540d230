"""What one or two processes play in `test_agents_reproducible.py`.

python reproducible_runs.py FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent / "unit"))

from test_agents_reproducible import _play, _requests, _tiny

from himac_agents import distributed
from himac_agents.rollouts import serial


def main(folder: Path) -> None:
    team = distributed.join()
    episodes = _play(_tiny(), team.share(_requests(15)), 4, seed=5)
    found = [e for part in team.gather([serial.to_json(e) for e in episodes]) for e in part]
    if team.leads:
        folder.mkdir(parents=True)
        (folder / "episodes.json").write_text(json.dumps(found), encoding="utf-8")
    team.wait()
    distributed.leave()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
