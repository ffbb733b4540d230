"""verl-agent: an environment manager for GiGPO, HGPO, HiPER and their kin.

Install: a checkout of verl-agent (it is on no package index) and ``pip install himac``.

Use: in the script that starts a training, change one import::

    from himac_envs.adapters.verl_agent import make_envs  # was: agent_system.environments

    envs, val_envs = make_envs(config)

or make a manager oneself::

    envs = EnvironmentManager("HiMAC-Sokoban-v0", groups=16, group_size=8, seed=0)
    obs, infos = envs.reset()
    obs, rewards, dones, infos = envs.step(["<think>...</think><action>up</action>"] * 128)

- Prompts: the protocol's fields in the protocol's order: the task, the last two steps, the present
  observation, the admissible actions, thoughts and then one action. In our own words, or in those
  of the checkout (``templates=family_templates("alfworld")``, which `make_envs` takes).
- Projection: an answer is read in lower case, its action between the first ``<action>`` and
  ``</action>``. Without them, the last 30 characters (20 in WebShop, nothing in Sokoban) are tried.
  ``is_action_valid`` is False without them, without ``<think>`` and ``</think>``, with Chinese
  characters, and in Sokoban where the action is no move. What was read is played all the same.
- Blueprint, sub-goals, ``<sub_done>``: on a hierarchical id the first prompt asks for a blueprint
  in ``<blueprint>`` tags; the others name the current sub-goal and list ``<sub_done>`` last.
- Rewards: 10 when the task is won, else 0; the trainer subtracts its penalty for invalid actions.
  With ``reward=`` they are the environment's own.
- Invalid commands are answered as the benchmark does and cost a step.
- After the end: a lane is left alone until the next reset. It answers its last observation, reward
  0 and done, whatever is said; verl-agent masks it out.
- Pictures: ``obs["image"]`` where the environment was made with ``image=True`` (uint8, [lanes,
  height, width, 3]); the prompt then has ``<image>`` in the observation's place. Else None.
- ``obs["anchor"]``: the bare observations, which GiGPO groups steps by; with the sub-goal below
  them on a hierarchical id.
- Groups: lanes ``i * group_size`` to ``(i + 1) * group_size - 1`` play one task. It is drawn from
  the manager's generator, or named in ``reset([{"task_id": ...}, ...])``, one entry a lane.
- Time limits: the environment's ``max_steps``; both ends are ``done``.
- Many at once: lanes are stepped one after the other in this process: no Ray workers.
- Closing: ``close()``.

Neither torch nor verl-agent is imported, `family_templates` excepted.
"""

from himac_envs.adapters.verl_agent.config import make_envs
from himac_envs.adapters.verl_agent.manager import EnvironmentManager
from himac_envs.adapters.verl_agent.prompt import Templates, family_templates

__all__ = ["EnvironmentManager", "Templates", "family_templates", "make_envs"]
