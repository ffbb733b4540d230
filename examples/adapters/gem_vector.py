"""Eight Sokoban rooms at once in GEM, played at random."""

import gem

import himac_envs.adapters.gem  # noqa: F401  # registers the ids

batch = gem.make_vec(["HiMAC-Sokoban-Flat-v0"] * 8, seed=7)
texts, infos = batch.reset()
for _ in range(20):
    texts, rewards, terminated, truncated, infos = batch.step(
        [env.sample_random_action() for env in batch.envs]
    )
print(sorted({info["task_id"] for info in infos}))
