"""The benchmarks for `inspect eval inspect_tasks.py@alfworld --model openai/gpt-5 -T count=50`."""

from himac_envs.adapters.inspect_ai import alfworld, sokoban, webshop

__all__ = ["alfworld", "sokoban", "webshop"]
