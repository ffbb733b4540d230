"""GRPO with TRL on a hierarchical environment: `python trl_grpo.py MODEL`."""

import sys

from trl import GRPOConfig, GRPOTrainer

from himac_envs.adapters.trl import dataset, environment

env_id, model = "HiMAC-Sokoban-v0", sys.argv[1]
config = GRPOConfig("trl-run", max_steps=2, max_tool_calling_iterations=33, report_to="none")
rows = dataset(env_id, count=100)
trainer = GRPOTrainer(model, None, config, rows, environment_factory=environment(env_id))
trainer.train()
print("reward", trainer.state.log_history[0]["reward"])
