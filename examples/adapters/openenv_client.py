"""A client of `himac serve-env HiMAC-ALFWorld-Flat-v0`: `python openenv_client.py URL`."""

import sys

from himac_envs.adapters.openenv import HiMACClient

with HiMACClient(sys.argv[1]).sync() as env:
    seen = env.reset(split="valid", index=0)
    while not seen.done:
        seen = env.step(seen.observation.admissible[-1])
    print(f"return {seen.observation.episode_return} after {seen.observation.step} steps")
