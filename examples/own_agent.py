"""Your own agent in 20 lines: plain strings in, plain strings out; nothing of himac_agents."""

import gymnasium as gym
import numpy as np

from himac_envs import TextOnly


class CuriousAgent:
    """Tries the admissible command that it has used least."""

    def __init__(self) -> None:
        self.used: dict[str, int] = {}

    def act(self, text: str, admissible: list[str]) -> str:
        command = min(admissible, key=lambda c: self.used.get(c, 0))
        self.used[command] = self.used.get(command, 0) + 1
        return command


if __name__ == "__main__":
    env = TextOnly(gym.make("HiMAC-ALFWorld-Flat-v0", split="valid"))
    scores = []
    for seed in range(10):
        agent = CuriousAgent()
        text, info = env.reset(seed=seed)
        done = False
        while not done:
            text, reward, terminated, truncated, info = env.step(
                agent.act(text, info["admissible"])
            )
            done = terminated or truncated
        scores.append(info["score"])
    print(f"score {np.mean(scores):.2f} over {len(scores)} episodes")
