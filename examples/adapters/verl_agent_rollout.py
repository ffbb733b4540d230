"""Four groups of eight lanes, played as verl-agent's rollout loop plays them."""

from himac_envs.adapters.verl_agent import EnvironmentManager

envs = EnvironmentManager("HiMAC-Sokoban-Flat-v0", groups=4, group_size=8, seed=0, max_steps=15)
obs, infos = envs.reset()
won = 0
for _ in range(15):
    answers = [f"<think></think><action>{i['admissible'][-1]}</action>" for i in infos]
    obs, rewards, dones, infos = envs.step(answers)
    won += (rewards > 0).sum()
print(len(obs["text"]), "lanes,", len({i["task_id"] for i in infos}), "tasks,", won, "won")
