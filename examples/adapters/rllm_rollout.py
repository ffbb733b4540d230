"""rLLM's rollout and evaluator on one task: `python rllm_rollout.py BASE_URL MODEL`."""

import asyncio
import sys
from types import SimpleNamespace

from himac_envs.adapters.rllm import play, rows, score

task = rows("HiMAC-Sokoban-v0", count=1)[0]  # rllm.rollout(play) and rllm.evaluator(score)
config = SimpleNamespace(base_url=sys.argv[1], model=sys.argv[2])  # are what rLLM calls
episode = SimpleNamespace(artifacts=asyncio.run(play(task, config)))
print("return, solved:", score(task, episode))
