"""A random agent on every environment of the suite.

python examples/random_agent.py [steps]
"""

import sys

import gymnasium as gym
import numpy as np

from himac_envs import FreeText
from himac_envs.registry import env_cards


def main(steps: int = 30) -> None:
    for env_id, card in env_cards().items():
        if card.kind == "browser":
            continue  # the same shop as the text environment, through a real browser
        env = gym.make(env_id)
        rng = np.random.default_rng(0)
        _, info = env.reset(seed=0)
        total = 0.0
        for _ in range(steps):
            offered = info["admissible"] if isinstance(env.action_space, FreeText) else []
            action = offered[rng.integers(len(offered))] if offered else env.action_space.sample()
            _, reward, terminated, truncated, info = env.step(action)
            total += float(reward)
            if terminated or truncated:
                _, info = env.reset()
        print(f"{env_id:28} {steps} steps, reward {total:+.2f}")
        env.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
