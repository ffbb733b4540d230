"""A taskset for verifiers and prime-rl: `vf-eval himac_tasks --env.taskset.env-id ID -r 8`."""

from himac_envs.adapters.verifiers import ChatHarness, HiMACEnv, HiMACTaskset

__all__ = ["ChatHarness", "HiMACEnv", "HiMACTaskset"]
