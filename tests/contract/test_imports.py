"""What an import costs, and what it must not load."""

from __future__ import annotations

import json
import subprocess
import sys

FORBIDDEN = {
    *("torch", "transformers", "textworld", "alfworld", "selenium", "pettingzoo", "flask"),
    *("numba", "himac_agents", "gym", "tyro", "rich", "pooch", "rapidfuzz", "PIL"),
}

_CODE = """
import json, sys, time
start = time.process_time()
import himac_envs
used = time.process_time() - start
print(json.dumps({"cpu": used, "loaded": sorted(m.split(".")[0] for m in sys.modules)}))
"""


def test_importing_the_suite_is_light() -> None:
    best = 9.0
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", _CODE], capture_output=True, text=True, check=True
        )
        found = json.loads(done.stdout)
        assert not set(found["loaded"]) & FORBIDDEN
        best = min(best, found["cpu"])
    assert best < 0.5, f"import himac_envs took {best:.2f} s of CPU"


def test_modules_are_there_once_they_are_asked_for() -> None:
    code = (
        "import sys, himac_envs\n"
        "assert 'himac_envs.vector' not in sys.modules\n"
        "assert callable(himac_envs.vector.make) and callable(himac_envs.testing.check_task_env)\n"
        "try:\n    himac_envs.nothing\n"
        "except AttributeError as error:\n    assert 'nothing' in str(error)\n"
        "else:\n    raise SystemExit('it is not there')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
