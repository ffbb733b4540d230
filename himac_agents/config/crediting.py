"""The settings of credit by steps: graphs of states, milestones, nested histories, critics.

The formulas are in `himac_agents.algorithms.graphs`, what is made of episodes in
`himac_agents.algorithms.stepwise`.
"""

from __future__ import annotations

from typing import Literal

from himac_agents.config.setting import section, setting


@section
class CreditSettings:
    """Credit by steps."""

    graph_credit: Literal["system", "visits", "hindsight", "distance"] = setting(
        "system",
        'How a step is judged in the graph of its group\'s transitions: "system" (CRBC: values '
        'are solved for), "visits" (means of returns to go, K = 0), "hindsight" (GraphHCA) or '
        '"distance" (GraphGPO).',
        "learning",
    )
    graph_keys: Literal["state", "observation", "history"] = setting(
        "state",
        'What makes two steps of a group steps from one state: the environment\'s "state" key '
        '(more than the agent sees), the "observation", or the whole "history" of observations '
        "and commands.",
        "learning",
    )
    graph_clock: int = setting(
        0,
        "Steps of one state in different stretches of so many decisions of their episode are steps "
        "from different states: near the limit a state is worth less. 0: there is no clock.",
        "learning",
        least=0,
    )
    graph_ends: Literal["episode", "subgoal"] = setting(
        "episode",
        '"himac-graph": where the executor\'s graph ends: with the "episode", or with each '
        '"subgoal", which is worth 1 where it was achieved (`graph_pays` is then not asked).',
        "learning",
    )
    blueprint_credit: Literal["options", "prefixes", "whole"] = setting(
        "options",
        '"himac-graph": the lines of a blueprint share its credit by the graph of "options" '
        "(executed sub-goals), or by how the group's blueprints fared that begin alike "
        '("prefixes"); or the "whole" has one number, as in "himac".',
        "learning",
    )
    graph_discount: float | None = setting(
        None,
        'What a step later is worth in the graph. None: 0.98, and 0.95 with "hindsight".',
        "learning",
        least=0,
        most=1,
    )
    graph_pays: Literal["success", "reward"] = setting(
        "success",
        'What the graph counts: "success" (1 at a solved end, as the papers do) or the '
        '"reward" of every step, where tasks are won in parts.',
        "learning",
    )
    graph_sigma: bool | None = setting(
        None,
        "Divide a step's credit by its state's deviation. None: the method's own.",
        "learning",
    )
    graph_weight: float = setting(5.0, "The weight of the graph's credit.", "learning", least=0)
    episode_weight: float | None = setting(
        None,
        "The weight of the whole episode's advantage (GRPO's) beside the graph's credit; in "
        '"himac-graph" of what `executor_advantage` names. None: the method\'s own.',
        "learning",
        least=0,
    )
    graph_fill: bool = setting(
        True,
        '"himac-graph": where a step has no credit of its own, it gets what its sub-goal changed '
        "in the value of the state.",
        "learning",
    )
    graph_centred: bool = setting(
        False,
        '"himac-graph": what a sub-goal leads to is discounted before it fills a gap, so that '
        "executions that do equally well get about 0. False: they get what discounting leaves.",
        "learning",
    )
    milestone_discount: float = setting(
        0.95,
        '"beacon": what a step further from the milestone is worth of one nearer.',
        "learning",
        least=0,
        most=1,
    )
    milestone_weight: float = setting(
        1.0, '"beacon": the weight of the milestones beside the episode.', "learning", least=0
    )
    hgpo_depth: int = setting(
        2, '"hgpo": how many observations back steps are compared.', "learning", least=0
    )
    hgpo_alpha: float = setting(
        1.0,
        '"hgpo": a history of k more observations weighs (k + 1) to this power.',
        "learning",
        least=0,
    )
    gae_discount: float = setting(
        0.95, '"hiper": what a decision later is worth.', "learning", least=0, most=1
    )
    gae_lambda: float = setting(
        0.95,
        '"hiper": how far temporal differences are added up: 0 is one step, 1 the whole return.',
        "learning",
        least=0,
        most=1,
    )
    critic_lr: float | None = setting(
        None,
        "A critic's learning rate. None: its own (\"hiper\": 1e-5, the paper's; a tiny model wants "
        "1e-2), or the policy's.",
        "learning",
        above=0,
    )
