"""What stands beside a run's result: the same work spent otherwise, and the experts."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from typing import Any

from himac_agents.agents.agent import Executor, HiMACAgent, Planner, assemble, forget
from himac_agents.agents.expert import Expert, ExpertKind
from himac_agents.algorithms.learner import Learner
from himac_agents.evaluation.evaluate import evaluate_tasks
from himac_agents.files import latest_checkpoint, reading
from himac_agents.policies.loading import load_policies
from himac_agents.training import checkpoint, result
from himac_agents.training.state import Running

#: CPU seconds between the checkpoints of further supervision.
SAVE_EVERY = 60.0


def further_supervision(trainer: Running) -> dict[str, Any]:
    """The warm start, trained on for the CPU time that reinforcement took, on the same data.

    CPU time of the process (all threads), so that a shared machine does not bend the comparison;
    checkpoints and evaluation are not counted. The learning rate rises to the warm start's peak
    again and decays along the same cosine, by the share of the time that has passed. Goes on where
    an interrupted one stopped.
    """
    config, budget = trainer.config, max(trainer.at.learn_cpu_seconds, 1e-9)
    folder = trainer.run_folder.folder / "supervised"
    newest = latest_checkpoint(folder) if any(folder.glob("step-*")) else None
    source = newest or trainer.run_folder.folder / "warm_start"
    policies = load_policies(source, config, not trainer.flat)
    learners = {name: Learner(policy, config) for name, policy in policies.items()}
    for learner in learners.values():
        learner.begin_supervision()
    steps, spent = 0, 0.0
    if newest is not None:
        with reading(newest / "state.json"):
            state = checkpoint.read_state(newest)["state"]
            steps, spent = int(state["steps"]), float(state["cpu_seconds"])
        for name, learner in learners.items():
            checkpoint.restore_optimizer(newest, name, learner.optimizer)
    streams = trainer.supervision(config.seed + 3, steps)
    saved, agree = spent, trainer.team.agree
    while (along := agree(spent / budget)) < 1.0:
        began = time.process_time()
        wave = 0.55 + 0.45 * math.cos(math.pi * along)
        lr = config.warm_lr * min(1.0, (steps + 1) / 50) * wave
        for name, stream in streams.items():
            if trainer.demonstrations.shown_to(name, steps):
                learners[name].imitate(next(stream), lr)
        steps += 1
        spent += time.process_time() - began
        stopping = trainer.stop.is_set()
        if agree(stopping or spent - saved >= SAVE_EVERY):
            saved = spent
            optimizers = {name: learner.optimizer for name, learner in learners.items()}
            done = {"steps": steps, "cpu_seconds": spent}
            checkpoint.save(folder, steps, done, policies, optimizers, keep=1)
        if stopping:
            raise KeyboardInterrupt
    agent = assemble(config, policies, trainer.prompts, not trainer.flat)
    found = trainer.evaluate(agent)
    return {**found, "cpu_seconds": round(spent, 3), "supervised_steps": steps}


def flat_grpo(trainer: Running) -> dict[str, Any]:
    """A flat agent: warm start of the same size, then GRPO for as many environment steps."""
    config = trainer.config.replace(
        method="grpo",
        baselines=(),
        iterations=10**6,
        max_env_steps=trainer.at.env_steps,
        max_tokens=0,
    )
    folder = trainer.run_folder.folder / "grpo"
    resume = trainer.team.agree((folder / "checkpoints").is_dir())
    if folder.exists() and not resume and trainer.team.leads:
        shutil.rmtree(folder)
    found = trainer.beside(config, folder, resume=resume).run()
    return {key: found[key] for key in ("warm_start", "final", "work")}


def scripted(trainer: Running, expert: ExpertKind) -> dict[str, Any]:
    """A scripted agent on the held-out tasks; the demonstrator plays without its mistakes."""
    policy = Expert(expert, seed=trainer.config.seed, prompts=trainer.prompts)
    planner = None if trainer.flat else Planner(policy, trainer.prompts)
    agent = HiMACAgent(planner, Executor(policy, trainer.prompts))
    split = trainer.config.eval_split
    return result.record(evaluate_tasks(agent, trainer.pool, trainer.eval_ids, split=split))


def oracle_planner(trainer: Running) -> dict[str, Any]:
    """The executor under the oracle's blueprints: what is lost is the executor's."""
    expert = Planner(Expert("oracle", prompts=trainer.prompts), trainer.prompts)
    return trainer.evaluate(HiMACAgent(expert, trainer.agent.executor))


def oracle_executor(trainer: Running) -> dict[str, Any]:
    """The planner's blueprints, carried out by the oracle: what is lost is the planner's.

    A sub-goal that cannot be reached is given up, and an episode does not go on behind the last.
    """
    expert = Executor(Expert("oracle", prompts=trainer.prompts), trainer.prompts)
    return trainer.evaluate(HiMACAgent(trainer.agent.planner, expert))


def cooler(trainer: Running) -> dict[str, Any]:
    """The trained agent at temperature 0.4, which verl-agent's evaluations use."""
    forget(trainer.agent)
    split = trainer.config.eval_split
    found = evaluate_tasks(
        trainer.agent, trainer.pool, trainer.eval_ids, temperature=0.4, split=split
    )
    forget(trainer.agent)
    return result.record(found)


BASELINES: dict[str, Callable[[Running], dict[str, Any]]] = {
    "supervised": further_supervision,
    "grpo": flat_grpo,
    "demonstrator": lambda trainer: scripted(trainer, trainer.config.expert),
    "oracle": lambda trainer: scripted(trainer, "oracle"),
    "oracle-planner": oracle_planner,
    "oracle-executor": oracle_executor,
    "temperature-0.4": cooler,
}
