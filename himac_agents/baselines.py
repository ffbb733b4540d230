"""What stands beside a run's result: the same work spent otherwise, and the experts."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from typing import Any

from himac_agents import checkpoint, outcome
from himac_agents.agent import Executor, HiMACAgent, Planner
from himac_agents.assembly import assemble, load_policies
from himac_agents.evaluate import play
from himac_agents.learner import Learner
from himac_agents.policies.scripted import Expert, ScriptedPolicy
from himac_agents.trainer import Trainer

#: CPU seconds between the checkpoints of further supervision.
SAVE_EVERY = 60.0


def further_supervision(trainer: Trainer) -> dict[str, Any]:
    """The warm start, trained on for the CPU time that reinforcement took, on the same data.

    CPU time of the process (all threads), so that a shared machine does not bend the comparison;
    checkpoints and evaluation are not counted. The learning rate rises to the warm start's peak
    again and decays along the same cosine, by the share of the time that has passed. Goes on where
    an interrupted one stopped.
    """
    config, budget = trainer.config, max(trainer.at.learn_cpu_seconds, 1e-9)
    folder = trainer.run_folder.folder / "supervised"
    newest = checkpoint.latest(folder) if any(folder.glob("step-*")) else None
    source = newest or trainer.run_folder.folder / "warm_start"
    policies = load_policies(source, config, seed=config.seed)
    learners = {name: Learner(policy, config) for name, policy in policies.items()}
    for learner in learners.values():
        learner.begin_supervision()
    steps, spent = 0, 0.0
    if newest is not None:
        with checkpoint.reading(newest / "state.json"):
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
        if trainer.team.leads and (stopping or spent - saved >= SAVE_EVERY):
            saved = spent
            optimizers = {name: learner.optimizer for name, learner in learners.items()}
            done = {"steps": steps, "cpu_seconds": spent}
            checkpoint.save(folder, steps, done, policies, optimizers, keep=1)
        if stopping:
            raise KeyboardInterrupt
    agent = assemble(config, policies, trainer.prompts)
    found = trainer.evaluate(agent)
    return {**found, "cpu_seconds": round(spent, 3), "supervised_steps": steps}


def flat_grpo(trainer: Trainer) -> dict[str, Any]:
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
    result = Trainer(config, folder, resume=resume, console=trainer.console).run()
    return {"warm_start": result["warm_start"], "final": result["final"], "work": result["work"]}


def demonstrator(trainer: Trainer) -> dict[str, Any]:
    """The expert whose demonstrations the warm start imitates, without its mistakes."""
    return scripted(trainer, trainer.config.expert)


def oracle(trainer: Trainer) -> dict[str, Any]:
    """The clairvoyant expert."""
    return scripted(trainer, "oracle")


def scripted(trainer: Trainer, expert: Expert) -> dict[str, Any]:
    """A scripted agent on the held-out tasks."""
    policy = ScriptedPolicy(expert, seed=trainer.config.seed, prompts=trainer.prompts)
    planner = None if trainer.flat else Planner(policy, trainer.prompts)
    agent = HiMACAgent(planner, Executor(policy, trainer.prompts))
    return outcome.record(play(agent, trainer.pool, trainer.eval_ids))


BASELINES: dict[str, Callable[[Trainer], dict[str, Any]]] = {
    "supervised": further_supervision,
    "grpo": flat_grpo,
    "demonstrator": demonstrator,
    "oracle": oracle,
}
