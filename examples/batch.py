"""Many environments at once, and groups of rollouts that are reset one by one."""

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

import himac_envs.vector

envs = himac_envs.vector.make("HiMAC-ALFWorld-v0", 8, autoreset_mode=AutoresetMode.DISABLED)
observations, infos = envs.reset(seed=0)
observations, *_ = envs.step(["1. find and take a mug\n2. put the mug in/on the shelf"] * 8)
print([s for s in observations["subgoal"][:2]])
observations, _ = envs.reset(options={"reset_mask": np.arange(8) < 4})
print(observations["phase"])
flat = gym.make_vec("HiMAC-ALFWorld-Flat-v0", num_envs=64)
texts = flat.reset(seed=0)[0]["text"]
print(len(texts), texts[0].splitlines()[0])
