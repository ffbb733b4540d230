"""GRPO with TRL on a hierarchical environment: `python trl_grpo.py MODEL [--cpu]`."""

import sys

from trl import GRPOConfig, GRPOTrainer

from himac_envs.adapters.trl import dataset, environment

env_id, cpu = "HiMAC-Sokoban-v0", "--cpu" in sys.argv
config = GRPOConfig("run", max_steps=1, logging_steps=1, use_cpu=cpu, bf16=not cpu, report_to=[])
config.max_tool_calling_iterations = 33  # the most decisions of an episode
rows, factory = dataset(env_id, count=100), environment(env_id)
trainer = GRPOTrainer(sys.argv[1], None, config, rows, environment_factory=factory)
trainer.train()
print("reward", trainer.state.log_history[0]["reward"])
