"""An environment client of AgentGym, played as AgentGym's tasks do, with fixed answers."""

from himac_envs.adapters.agentgym import HiMACEnvClient

client = HiMACEnvClient("HiMAC-Sokoban-Flat-v0", split="valid", max_steps=3)
client.reset(0)
done = False
while not done:
    output = client.step("Thought:\nI go up.\n\nAction:\nup")
    done = output.done
print(f"{len(client)} tasks; reward {output.reward}")
