"""Any model behind an OpenAI-compatible address as planner and executor, evaluated.

python examples/api_agent.py BASE_URL MODEL        (the key: OPENAI_API_KEY)

`himac eval` does the same as a command.
"""

import sys

from himac_agents.agents.agent import HiMACAgent
from himac_agents.evaluation.evaluate import evaluate
from himac_agents.policies.endpoint import Endpoint
from himac_agents.policies.remote import APIPolicy
from himac_agents.prompts import ChatPrompts


def main(base_url: str, model: str) -> None:
    policy = APIPolicy(Endpoint(model, base_url))
    agent = HiMACAgent.shared(policy, ChatPrompts())
    found = evaluate(agent, "HiMAC-ALFWorld-v0", "valid", episodes=4, env_kwargs={"max_steps": 5})
    low, high = found.ci95
    print(f"{model}: success {found.success:.2f} ({low:.2f} to {high:.2f}) in 4 episodes")
    print(f"{found.env_steps} environment steps, {found.errors} errors; {policy.usage}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    main(sys.argv[1], sys.argv[2])
