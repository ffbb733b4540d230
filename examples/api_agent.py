"""Any model behind an OpenAI-compatible address as planner and executor, evaluated.

python examples/api_agent.py [BASE_URL MODEL]        (the key: OPENAI_API_KEY)

Without an address it starts a server on this machine that plans nothing and looks around: enough to
see what is asked, what is answered and what is counted. `himac eval` does the same as a command.
"""

import sys

from himac_agents.agent import HiMACAgent
from himac_agents.evaluate import evaluate
from himac_agents.policies.api import APIPolicy, Endpoint
from himac_agents.prompts import ChatPrompts
from himac_agents.testing import ChatServer


def answer(request: dict) -> str:
    """What the pretended model says to a chat request."""
    asked = request["messages"][-1]["content"]
    if "blueprint" in asked.lower():
        return "<blueprint>\n1. look around\n2. check what is carried\n</blueprint>"
    return "<think>Where am I?</think><action>look</action>"


def main(base_url: str, model: str) -> None:
    policy = APIPolicy(Endpoint(model, base_url))
    agent = HiMACAgent.shared(policy, ChatPrompts())
    found = evaluate(agent, "HiMAC-ALFWorld-v0", "valid", episodes=4, max_steps=5)
    low, high = found.ci95
    print(f"{model}: success {found.success:.2f} ({low:.2f} to {high:.2f}) in 4 episodes")
    print(f"{found.env_steps} environment steps, {found.errors} errors; {policy.usage}")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        main(sys.argv[1], sys.argv[2])
    else:
        with ChatServer(answer) as server:
            main(server.url, "pretended-model")
            print(f"the server was asked {len(server.requests)} times")
