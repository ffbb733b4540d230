"""The settings of reinforcement learning; see `himac_agents.config.sections` for the others.

The formulas of step-level credit are in `himac_agents.algorithms.graphs`, their use on episodes in
`himac_agents.algorithms.stepwise`.
"""

from __future__ import annotations

from typing import Literal

from himac_agents.config.setting import section, setting


@section("learning")
class LearningSettings:
    """Reinforcement learning."""

    iterations: int = setting(20, "extent", least=0)
    """Most iterations: each is phase A, then phase B (flat and joint methods: one phase)."""
    max_env_steps: int = setting(0, "extent", least=0)
    """End learning with the iteration that reaches this many environment steps; 0: no limit."""
    max_tokens: int = setting(0, "extent", least=0)
    """End learning with the iteration that reaches this many written tokens; 0: no limit."""
    eval_at_tokens: int = setting(0, least=0)
    """Measure held-out success (temperature 1) once more after the iteration that reaches this many
    written tokens, so that methods can be compared at equal tokens. 0: never."""
    tasks: int = setting(16, least=1)
    """Tasks drawn in each iteration."""
    blueprints: int = setting(8, least=1)
    """M: blueprints sampled for each task in phase A (and in "himac-joint")."""
    executions: int = setting(8, least=1)
    """N: executions of z*, the task's best blueprint, sampled in phase B; in flat methods, episodes
    of each task."""
    greedy_execution: bool = True
    """In phase A the executor is greedy, as in the paper: one execution then shows what a blueprint
    is worth, and equal blueprints are executed once. False: it samples."""
    planner_every: int = setting(1, least=1)
    """Every k-th iteration has a phase A; in the others the executor practises on the planner's
    greedy blueprints."""
    executor_updates: int = setting(1, least=1)
    """Executor updates in each iteration, each on new executions of z*."""
    resample_dead: int = setting(0, least=0)
    """How many times dead groups (all returns equal, so no credit) are replaced by groups of newly
    drawn tasks; their cost counts as work."""
    executor_advantage: Literal["trajectory", "option", "both"] | None = None
    """The executor's credit: of the whole "trajectory" (the paper's), of each "option" (executed
    sub-goal), or "both". None: the method's own."""
    stop_at_failure: bool | None = None
    """While learning, end an execution at its first failed sub-goal and count it as not solved, to
    save time. Evaluation always plays to the end. None: the method's own."""
    credit_cut_subgoals: bool | None = None
    """In credit by sub-goals, count a sub-goal as achieved also when a budget or the step limit
    ended it instead of `<sub_done>` or the task's end. Executors may then stop saying `<sub_done>`.
    None: the method's own."""
    step_cost: float = setting(0.0, least=0)
    """Option credit: what each step takes off an achieved sub-goal's value. Above 0, where all
    executions succeed, luck in searching gets credit as if it were skill."""
    advantage_std: bool = True
    """Divide advantages by the group's standard deviation ("rloo" never does)."""
    gigpo_discount: float = setting(0.95, least=0, most=1)
    """In "gigpo" and "hgpo": the discount per step."""
    gigpo_weight: float = setting(1.0, least=0)
    """In "gigpo": the weight of a step's advantage beside its episode's."""
    format_penalty: float = setting(0.1, least=0)
    """What is taken off the return of an unreadable blueprint."""
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
    """How the loss averages: each "sequence" weighs the same, each "token" does, or each sequence's
    sum is divided by a "constant"."""
    loss_constant: float = setting(512.0, above=0)
    """With loss_mean = "constant": the divisor of the sum over a sequence's tokens."""
    minibatches: int = setting(2, least=1)
    """Most optimiser steps in one pass over a phase's samples."""
    least_minibatch: int = setting(32, least=1)
    """Least number of sequences with an advantage in a mini-batch. A phase with fewer makes a
    single step, scaled down by how much less full that mini-batch is than a phase's in which every
    sequence has an advantage."""
    epochs: int = setting(1, least=1)
    """Passes over a phase's samples."""
    micro_tokens: int = setting(2048, "speed", least=1)
    """Padded tokens in a micro-batch (memory and speed only; the gradient is the same). Small ones
    hold sequences of nearly equal length; a GPU wants more."""
    max_grad_norm: float = setting(1.0, "start", above=0)
    """The gradient is clipped to this norm."""
    temperature: float = setting(1.0, above=0)
    """Sampling temperature while learning."""


@section("learning")
class CreditSettings:
    """Step-level credit."""

    graph_credit: Literal["system", "visits", "hindsight", "distance"] = "system"
    """How the graph of a group's transitions gives a step its credit: "system" (CRBC: values solve
    the Bellman equations), "visits" (values are mean returns to go), "hindsight" (GraphHCA) or
    "distance" (GraphGPO)."""
    graph_keys: Literal["state", "observation", "history"] = "state"
    """Two steps of a group start in the same state if they share the environment's "state" key
    (which holds more than the agent sees), the "observation", or the whole "history" of
    observations and commands."""
    graph_clock: int = setting(0, least=0)
    """Cut episodes into stretches of this many decisions, and tell the same state in different
    stretches apart: near the step limit a state is worth less. 0: no clock."""
    graph_ends: Literal["episode", "subgoal"] | None = None
    """In "himac-graph": where the executor's graph ends: with the "episode", or with each
    "subgoal", which is worth 1 if it was achieved (`graph_pays` then has no effect). None: the
    method's own ("episode"; "graph-beside-options": "subgoal")."""
    blueprint_credit: Literal["options", "prefixes", "whole"] | None = None
    """In "himac-graph": what gives each line of a blueprint its credit: the graph of "options"
    (executed sub-goals), or the mean advantage of the group's blueprints with the same first lines
    ("prefixes"). "whole": one number for all lines, as in "himac". None: the method's own
    ("options"; "graph-beside-options": "whole")."""
    graph_discount: float | None = setting(None, least=0, most=1)
    """The graph's discount per step. None: 0.98, or 0.95 with "hindsight"."""
    graph_pays: Literal["success", "reward"] = "success"
    """What the graph counts: "success" (1 at a solved end, as the papers do) or the "reward" of
    every step, where tasks are won in parts. Not with `graph_credit = "distance"`, which counts
    steps to a solved end."""
    graph_sigma: bool | None = None
    """Divide a step's credit by the standard deviation in its state. None: the method's own."""
    graph_weight: float | None = setting(None, least=0)
    """The weight of the graph's credit. None: the method's own (5; "graph-beside-options": 1)."""
    episode_weight: float | None = setting(None, least=0)
    """The weight of the episode's advantage (GRPO's) beside the graph's credit; in "himac-graph",
    of the credit that `executor_advantage` names. None: the method's own."""
    graph_fill: bool | None = None
    """In "himac-graph": a step without credit of its own gets the change in the state's value over
    its sub-goal. None: the method's own (true; "graph-beside-options": false)."""
    graph_centred: bool = False
    """In "himac-graph": discount the value after a sub-goal by the sub-goal's length before
    `graph_fill` uses it, so that executions that do equally well get about 0, not a small gain."""
    milestone_discount: float = setting(0.95, least=0, most=1)
    """In "beacon": the discount per step of distance from the milestone."""
    milestone_weight: float = setting(1.0, least=0)
    """In "beacon": the weight of the milestones' credit beside the episode's."""
    hgpo_depth: int = setting(2, least=0)
    """In "hgpo": steps are compared over up to this many earlier observations."""
    hgpo_alpha: float = setting(1.0, least=0)
    """In "hgpo": steps compared over k earlier observations weigh (k + 1) to this power."""
    gae_discount: float = setting(0.95, least=0, most=1)
    """In "hiper": the discount per decision."""
    gae_lambda: float = setting(0.95, least=0, most=1)
    """In "hiper": lambda of generalised advantage estimation: 0 is one step, 1 the whole return."""
    critic_lr: float | None = setting(None, above=0)
    """A critic's learning rate. None: the method's own ("hiper": the paper's 1e-5; a tiny model
    needs 1e-3), else the policy's."""
