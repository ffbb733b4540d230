"""The environment that BALROG's evaluator gets of this make_env, played as it plays."""

from himac_envs.adapters.balrog import make_env

env = make_env(max_steps=3)("sokoban", "valid", config=None)
obs, info = env.reset(seed=1)
done = False
while not done:
    action = env.check_action_validity(env.actions[0])
    obs, reward, terminated, truncated, info = env.step(action)
    done = terminated or truncated
print(env.get_stats()["progression"], env.failed_candidates)
