"""The settings of reinforcement learning; see `himac_agents.config.sections` for the others."""

from __future__ import annotations

from typing import Literal

from himac_agents.config.setting import section, setting


@section
class LearningSettings:
    """Reinforcement learning."""

    iterations: int = setting(
        20,
        "Iterations at most: each is phase A, then phase B (flat and joint methods: one phase).",
        "extent",
        least=0,
    )
    max_env_steps: int = setting(
        0,
        "Learning ends with the iteration in which so many steps of tasks were taken; 0 sets "
        "no bound.",
        "extent",
        least=0,
    )
    max_tokens: int = setting(
        0,
        "Learning ends with the iteration in which so many tokens were written; 0 sets no bound.",
        "extent",
        least=0,
    )
    eval_at_tokens: int = setting(
        0,
        "Held-out success at temperature 1 is measured once more, after the iteration in "
        "which so many tokens were written: methods can then be compared at equal tokens too. "
        "0: it is not.",
        "learning",
        least=0,
    )
    tasks: int = setting(16, "Tasks drawn for an iteration.", "learning", least=1)
    blueprints: int = setting(
        8,
        'M: blueprints sampled a task in phase A (and in "himac-joint").',
        "learning",
        least=1,
    )
    executions: int = setting(
        8,
        "N: executions of z* sampled a task in phase B; episodes a task in flat methods.",
        "learning",
        least=1,
    )
    greedy_execution: bool = setting(
        True,
        "The executor is greedy in phase A, as in the paper: one execution then tells what a "
        "blueprint is worth with this executor, and equal blueprints are executed once. "
        "False: it samples.",
        "learning",
    )
    planner_every: int = setting(
        1,
        "Phase A comes with every k-th iteration; in between, the executor practises on the "
        "planner's most likely blueprints.",
        "learning",
        least=1,
    )
    executor_updates: int = setting(
        1,
        "Executor updates an iteration, each on fresh executions of z*.",
        "learning",
        least=1,
    )
    resample_dead: int = setting(
        0,
        'Up to so many times, groups without any credit ("dead") are replaced by groups of '
        "newly drawn tasks; what they cost counts as work.",
        "learning",
        least=0,
    )
    executor_advantage: Literal["trajectory", "option", "both"] | None = setting(
        None,
        'The executor\'s credit: "trajectory" (the paper\'s), "option" (a sub-goal at a time) '
        'or "both". None: the method\'s own.',
        "learning",
    )
    stop_at_failure: bool | None = setting(
        None,
        "While learning, end an execution with its first failed sub-goal, as not solved: what "
        "follows is seldom worth its time. Evaluation always plays to the end. None: the method's "
        "own.",
        "learning",
    )
    step_cost: float = setting(
        0.0,
        "What a step takes off an achieved sub-goal's value, for the option-level advantage. "
        "Above 0, search luck looks like skill wherever all executions succeed and the "
        "deviation is divided by.",
        "learning",
        least=0,
    )
    advantage_std: bool = setting(
        True,
        'Divide advantages by the group\'s standard deviation ("rloo" never does).',
        "learning",
    )
    gigpo_discount: float = setting(
        0.95,
        "GiGPO: what a reward one step later is worth.",
        "learning",
        least=0,
        most=1,
    )
    gigpo_weight: float = setting(
        1.0,
        "GiGPO: the weight of a step's advantage beside its episode's.",
        "learning",
        least=0,
    )
    format_penalty: float = setting(0.1, "What an unparsable blueprint loses.", "learning", least=0)
    lr: float = setting(5e-4, "Learning rate.", "learning", least=0)
    clip: float | None = setting(
        None,
        "Lower clip of the probability ratio. None: the method's own.",
        "learning",
        least=0,
    )
    clip_high: float | None = setting(
        None,
        "Upper clip of the probability ratio. None: the method's own.",
        "learning",
        least=0,
    )
    kl: float | None = setting(
        None,
        "Weight of the KL penalty to the warm start; 0 keeps no reference model. None: the "
        "method's own.",
        "learning",
        least=0,
    )
    loss_mean: Literal["sequence", "token", "constant"] = setting(
        "sequence",
        'Whose mean the loss is: every "sequence" weighs the same, every "token" does, or '
        '"constant".',
        "learning",
    )
    loss_constant: float = setting(
        512.0,
        'With loss_mean = "constant": what the sum over a sequence\'s tokens is divided by.',
        "learning",
        above=0,
    )
    minibatches: int = setting(2, "Optimiser steps a phase, at most.", "learning", least=1)
    least_minibatch: int = setting(
        32,
        "A phase is cut into mini-batches of at least so many sequences that carry an "
        "advantage. One with fewer makes a single step, which is as much smaller as that "
        "mini-batch is less full than those of a phase in which all carry one.",
        "learning",
        least=1,
    )
    epochs: int = setting(1, "Passes over a phase's samples.", "learning", least=1)
    micro_tokens: int = setting(
        2048,
        "Padded tokens in a micro-batch (memory and speed only; the gradient is the same). "
        "Small ones hold sequences of nearly equal length; a GPU wants more.",
        "speed",
        least=1,
    )
    max_grad_norm: float = setting(1.0, "The gradient's norm is clipped here.", "start", above=0)
    temperature: float = setting(1.0, "Sampling temperature while learning.", "learning", above=0)
