"""Planner and executor as two PettingZoo agents (pip install '.[multiagent]')."""

from himac_envs import OracleExecutor, OraclePlanner
from himac_envs.multiagent import env

game = env("HiMAC-ALFWorld-v0", split="valid")
policies = {"planner_0": OraclePlanner(game.env), "executor_0": OracleExecutor(game.env)}
game.reset(seed=0)
total = 0.0
for agent in game.agent_iter():
    observation, reward, termination, truncation, info = game.last()
    if termination or truncation:
        total = max(total, reward)
        game.step(None)
    else:
        game.step(policies[agent](observation, info))
print(f"return {total:g}, won: {info['won']}")
