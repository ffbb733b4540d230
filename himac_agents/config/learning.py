"""The settings of reinforcement learning; see `himac_agents.config.sections` for the others.

The formulas of credit by steps are in `himac_agents.algorithms.graphs`, what is made of episodes in
`himac_agents.algorithms.stepwise`.
"""

from __future__ import annotations

from typing import Literal

from himac_agents.config.setting import section, setting


@section("learning")
class LearningSettings:
    """Reinforcement learning."""

    iterations: int = setting(20, "extent", least=0)
    """Iterations at most: each is phase A, then phase B (flat and joint methods: one phase)."""
    max_env_steps: int = setting(0, "extent", least=0)
    """Learning ends with the iteration in which so many steps of tasks were taken; 0 sets no
    bound."""
    max_tokens: int = setting(0, "extent", least=0)
    """Learning ends with the iteration in which so many tokens were written; 0 sets no bound."""
    eval_at_tokens: int = setting(0, least=0)
    """Held-out success at temperature 1 is measured once more, after the iteration in which so many
    tokens were written: methods can then be compared at equal tokens too. 0: it is not."""
    tasks: int = setting(16, least=1)
    """Tasks drawn for an iteration."""
    blueprints: int = setting(8, least=1)
    """M: blueprints sampled a task in phase A (and in "himac-joint")."""
    executions: int = setting(8, least=1)
    """N: executions of z* sampled a task in phase B; episodes a task in flat methods."""
    greedy_execution: bool = True
    """The executor is greedy in phase A, as in the paper: one execution then tells what a blueprint
    is worth with this executor, and equal blueprints are executed once. False: it samples."""
    planner_every: int = setting(1, least=1)
    """Phase A comes with every k-th iteration; in between, the executor practises on the planner's
    most likely blueprints."""
    executor_updates: int = setting(1, least=1)
    """Executor updates an iteration, each on fresh executions of z*."""
    resample_dead: int = setting(0, least=0)
    """Up to so many times, groups without any credit ("dead") are replaced by groups of newly drawn
    tasks; what they cost counts as work."""
    executor_advantage: Literal["trajectory", "option", "both"] | None = None
    """The executor's credit: "trajectory" (the paper's), "option" (a sub-goal at a time) or "both".
    None: the method's own."""
    stop_at_failure: bool | None = None
    """While learning, end an execution with its first failed sub-goal, as not solved: what follows
    is seldom worth its time. Evaluation always plays to the end. None: the method's own."""
    credit_cut_subgoals: bool | None = None
    """Count a sub-goal that holds as achieved also where a budget or the step limit ended it, not
    `<sub_done>` or the task's end. With credit by sub-goals an executor then learns to go on
    instead of saying that it is done, which it may be wrong about. None: the method's own."""
    step_cost: float = setting(0.0, least=0)
    """What a step takes off an achieved sub-goal's value, for the option-level advantage. Above 0,
    search luck looks like skill wherever all executions succeed and the deviation is divided by."""
    advantage_std: bool = True
    """Divide advantages by the group's standard deviation ("rloo" never does)."""
    gigpo_discount: float = setting(0.95, least=0, most=1)
    """GiGPO: what a reward one step later is worth."""
    gigpo_weight: float = setting(1.0, least=0)
    """GiGPO: the weight of a step's advantage beside its episode's."""
    format_penalty: float = setting(0.1, least=0)
    """What an unparsable blueprint loses."""
    lr: float = setting(5e-4, least=0)
    """Learning rate."""
    clip: float | None = setting(None, least=0)
    """Lower clip of the probability ratio. None: the method's own."""
    clip_high: float | None = setting(None, least=0)
    """Upper clip of the probability ratio. None: the method's own."""
    kl: float | None = setting(None, least=0)
    """Weight of the KL penalty to the warm start; 0 keeps no reference model. None: the method's
    own."""
    loss_mean: Literal["sequence", "token", "constant"] = "sequence"
    """Whose mean the loss is: every "sequence" weighs the same, every "token" does, or
    "constant"."""
    loss_constant: float = setting(512.0, above=0)
    """With loss_mean = "constant": what the sum over a sequence's tokens is divided by."""
    minibatches: int = setting(2, least=1)
    """Optimiser steps a phase, at most."""
    least_minibatch: int = setting(32, least=1)
    """A phase is cut into mini-batches of at least so many sequences that carry an advantage. One
    with fewer makes a single step, which is as much smaller as that mini-batch is less full than
    those of a phase in which all carry one."""
    epochs: int = setting(1, least=1)
    """Passes over a phase's samples."""
    micro_tokens: int = setting(2048, "speed", least=1)
    """Padded tokens in a micro-batch (memory and speed only; the gradient is the same). Small ones
    hold sequences of nearly equal length; a GPU wants more."""
    max_grad_norm: float = setting(1.0, "start", above=0)
    """The gradient's norm is clipped here."""
    temperature: float = setting(1.0, above=0)
    """Sampling temperature while learning."""


@section("learning")
class CreditSettings:
    """Credit by steps."""

    graph_credit: Literal["system", "visits", "hindsight", "distance"] = "system"
    """How a step is judged in the graph of its group's transitions: "system" (CRBC: values are
    solved for), "visits" (means of returns to go, K = 0), "hindsight" (GraphHCA) or "distance"
    (GraphGPO)."""
    graph_keys: Literal["state", "observation", "history"] = "state"
    """What makes two steps of a group steps from one state: the environment's "state" key (more
    than the agent sees), the "observation", or the whole "history" of observations and commands."""
    graph_clock: int = setting(0, least=0)
    """Steps of one state in different stretches of so many decisions of their episode are steps
    from different states: near the limit a state is worth less. 0: there is no clock."""
    graph_ends: Literal["episode", "subgoal"] = "episode"
    """In "himac-graph": where the executor's graph ends: with the "episode", or with each
    "subgoal", which is worth 1 where it was achieved (`graph_pays` is then not asked)."""
    blueprint_credit: Literal["options", "prefixes", "whole"] = "options"
    """In "himac-graph": the lines of a blueprint share its credit by the graph of "options"
    (executed sub-goals), or by how the group's blueprints fared that begin alike ("prefixes"); or
    the "whole" has one number, as in "himac"."""
    graph_discount: float | None = setting(None, least=0, most=1)
    """What a step later is worth in the graph. None: 0.98, and 0.95 with "hindsight"."""
    graph_pays: Literal["success", "reward"] = "success"
    """What the graph counts: "success" (1 at a solved end, as the papers do) or the "reward" of
    every step, where tasks are won in parts."""
    graph_sigma: bool | None = None
    """Divide a step's credit by its state's deviation. None: the method's own."""
    graph_weight: float = setting(5.0, least=0)
    """The weight of the graph's credit."""
    episode_weight: float | None = setting(None, least=0)
    """The weight of the whole episode's advantage (GRPO's) beside the graph's credit; in
    "himac-graph" of what `executor_advantage` names. None: the method's own."""
    graph_fill: bool = True
    """In "himac-graph": where a step has no credit of its own, it gets what its sub-goal changed in
    the value of the state."""
    graph_centred: bool = False
    """In "himac-graph": what a sub-goal leads to is discounted before it fills a gap, so that
    executions that do equally well get about 0. False: they get what discounting leaves."""
    milestone_discount: float = setting(0.95, least=0, most=1)
    """In "beacon": what a step further from the milestone is worth of one nearer."""
    milestone_weight: float = setting(1.0, least=0)
    """In "beacon": the weight of the milestones beside the episode."""
    hgpo_depth: int = setting(2, least=0)
    """In "hgpo": how many observations back steps are compared."""
    hgpo_alpha: float = setting(1.0, least=0)
    """In "hgpo": a history of k more observations weighs (k + 1) to this power."""
    gae_discount: float = setting(0.95, least=0, most=1)
    """In "hiper": what a decision later is worth."""
    gae_lambda: float = setting(0.95, least=0, most=1)
    """In "hiper": how far temporal differences are added up: 0 is one step, 1 the whole return."""
    critic_lr: float | None = setting(None, above=0)
    """A critic's learning rate. None: its own ("hiper": 1e-5, the paper's; a tiny model wants
    1e-2), or the policy's."""
