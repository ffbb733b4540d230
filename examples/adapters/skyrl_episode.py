"""A row of SkyRL's data set, played as SkyRL's generator plays it."""

import skyrl_gym

import himac_envs.adapters.skyrl as himac

row = himac.rows("HiMAC-Sokoban-v0", count=1)[0]
env = skyrl_gym.make(row["env_class"], env_config={}, extras=row)
messages, about = env.init(row["prompt"])
while not (step := env.step(env.session.expert()))["done"]:
    messages += step["observations"]
print(len(messages), "messages", env.get_metrics())
