"""Train only the planner, with a loop of your own: the executor is part of the world.

A planner that chooses among a few blueprint forms learns which one the executor can carry out, by
counting (an epsilon-greedy bandit, to keep the example short).
"""

import gymnasium as gym
import numpy as np

from himac_envs import OracleExecutor, PlannerView

env = gym.make("HiMAC-ALFWorld-v0", split="train").unwrapped
view = PlannerView(env, OracleExecutor(env))
rng = np.random.default_rng(0)
styles = ["the expert's", "its first half", "the goal itself"]
value, tried = np.zeros(3), np.zeros(3)
for episode in range(30):
    _, info = view.reset(seed=episode)
    expert = env.oracle_blueprint().texts()
    style = int(rng.integers(3)) if rng.random() < 0.3 else int(value.argmax())
    goals = [expert, expert[: len(expert) // 2], [info["goal"]]][style]
    blueprint = "\n".join(f"{i}. {g}" for i, g in enumerate(goals, 1))
    _, reward, _, _, info = view.step(blueprint)
    tried[style] += 1
    value[style] += (reward - 0.01 * info["duration"] - value[style]) / tried[style]
for name, v, n in zip(styles, value, tried, strict=True):
    print(f"{name:18} value {v:+.2f} over {n:.0f} episodes")
