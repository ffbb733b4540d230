"""A training run from settings to result: warm start, co-evolution, evaluation, checkpoints.

The algorithm itself is in `himac_agents.algorithms.himac`; here it is put to work, made resumable
and measured. The draw of tasks is the one thing random that a checkpoint has to hold: sampling
depends on (seed, task, episode number, position) alone.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from rich.console import Console

import himac_envs  # noqa: F401  (registers the environments)
from himac_agents import distributed
from himac_agents.agents.agent import HiMACAgent, assemble, forget
from himac_agents.algorithms.iteration import Iteration, Setting
from himac_agents.algorithms.learner import Learner, cosine
from himac_agents.algorithms.methods import Method, check, method_of, supervised_steps
from himac_agents.config import TrainConfig
from himac_agents.config.environments import import_modules
from himac_agents.evaluation.evaluate import panel_of
from himac_agents.files import find_checkpoint, reading
from himac_agents.policies import memory, noise
from himac_agents.policies.base import TokenBatch, in_role
from himac_agents.policies.loading import make_policies, policy_names, sampled
from himac_agents.policies.threads import set_threads
from himac_agents.prompts import make_prompts
from himac_agents.rollouts.pool import make_pool
from himac_agents.rollouts.trace import Sample
from himac_agents.training import checkpoint, parts, result, stopping
from himac_agents.training.baselines import BASELINES
from himac_agents.training.loggers import Logger, check_loggers
from himac_agents.training.measuring import BEST, Panel, measured
from himac_agents.training.progress import Clock, Display
from himac_agents.training.run import Run, UnwrittenRun
from himac_agents.training.state import Progressed, spent
from himac_agents.training.supervision import Demonstrations

#: Streams of random numbers that a run draws from its seed.
_TASKS = 0  # 1 belongs to `demonstration_order`

#: Supervised steps between checkpoints.
_WARM_SAVE = 500


class Trainer:
    """One run.

    Attributes:
        stop: Set to end every trainer of this process (a baseline may be one within another) at its
            next supervised step or iteration, with a checkpoint and a KeyboardInterrupt.

    Args:
        config: The settings. All else is made from them where it is not given.
        folder: Where the run is written; None: runs/METHOD-seedN.
        agent: Who learns; see `himac_agents.training.parts`.
        envs: An environment's id, a function that makes one, or a pool of them.
        method: A method's name, or the method.
        loggers: Who is told the metrics, in place of those that the settings name.
        resume: Continue the run in `folder` from its newest checkpoint.
        console: Where progress is shown; None makes one on stderr.

    Raises:
        ValueError: Settings, or parts that were given, mean nothing together.

    Example:
        >>> Trainer(TrainConfig.preset("quickstart"), "runs/first").run()  # doctest: +SKIP
    """

    stop: ClassVar[threading.Event] = threading.Event()

    def __init__(
        self,
        config: TrainConfig,
        folder: str | Path | None = None,
        agent: HiMACAgent | None = None,
        envs: parts.Envs | None = None,
        method: Method | str | None = None,
        loggers: Sequence[Logger] | None = None,
        *,
        resume: bool = False,
        console: Console | None = None,
    ) -> None:
        if method is not None:
            name = method if isinstance(method, str) else parts.name_of(method)
            config = config.replace(method=name)
        import_modules(config.env, config.flat_env)
        self.config = config = check(config)
        check_loggers(config)
        if config.policy == "hf" and not config.model and agent is None:
            raise ValueError("model: policy='hf' needs model=<a name or a folder>")
        self.team = distributed.join()
        if config.tasks < self.team.size:
            raise ValueError(
                f"tasks={config.tasks}: {self.team.size} processes need at least one each"
            )
        quiet = Console(quiet=True)
        self.console = (console or Console(stderr=True)) if self.team.leads else quiet
        self.display = Display(self.console)
        self.method = method_of(config)
        if told := parts.check_shard(config, self.method, self.team.size, resume=resume):
            self.display.say(told)
        self.flat = not self.method.hierarchical
        self.own_agent = agent is not None
        with self.display.stage("environments"):
            if envs is None:
                self.pool = make_pool(config, flat=self.flat, sub_done=self.method.sub_done)
            else:
                config, self.pool = parts.with_envs(config, envs, flat=self.flat)
            self.train_ids = self.pool.task_ids("train")
            held_out = config.eval_split, config.eval_episodes
            self.eval_ids = panel_of(self.pool, *held_out, self.display.say)
            self.panel = Panel(config, self.pool)
        self.config = config
        if agent is None:
            self.prompts = make_prompts(config, sub_done=self.method.sub_done)
        else:
            parts.check_own_agent(config)
            self.policies = parts.policies_of(agent, flat=self.flat)
            self.prompts = agent.executor.prompts
        self.demonstrations = Demonstrations(
            config, self.pool, self.prompts, self.train_ids, self.display
        )
        # Demonstrated tasks and tasks to learn on are apart where there are enough of both.
        self.task_pool = self.demonstrations.other_ids
        if len(self.task_pool) < config.tasks:
            self.task_pool = list(self.train_ids)
        self.rng = np.random.default_rng([config.seed, _TASKS])
        self.at = Progressed()
        self.mark: stopping.Mark | None = None
        kind = Run if self.team.leads else UnwrittenRun
        place = Path("runs") / f"{config.method}-seed{config.seed}" if folder is None else folder
        self.run_folder = kind(
            Path(place), config, resume=resume, loggers=loggers, warn=self.display.say
        )
        self.team.wait()
        found = find_checkpoint(self.run_folder.checkpoints) if resume else None
        newest = self.team.agree(found)
        if agent is None:
            names = policy_names(config, not self.flat)
            if told := memory.told(config, self.team.size, len(names)):
                self.display.say(told)
            texts = self.demonstrations.texts
            what = "episodes for the vocabulary" if config.policy == "tiny" else "model"
            with self.display.stage(what):
                self.policies = make_policies(config, not self.flat, newest, texts)
                self.rollouts, players = sampled(config, self.policies)
            self.agent = assemble(config, players, self.prompts, not self.flat)
        else:
            self.agent, self.rollouts = agent, None
            if newest is not None:
                parts.load_weights(self.policies, newest)
        if told := set_threads(config.threads, self.policies.values()):
            self.display.say(told)
        self.learners = {
            name: Learner(p, config, name=name, critic=self.method.critic)
            for name, p in self.policies.items()
        }
        self.run_folder.begin()
        if newest is not None:
            self._restore(newest)
        elif resume:  # stopped before its first checkpoint: the same run from its beginning
            self.run_folder.rewind(0)

    # -- the run ---------------------------------------------------------------------------------

    @stopping.keeping_the_last_good
    def run(self) -> dict[str, Any]:
        """Everything that is still to be done; returns what `result.json` holds."""
        config = self.config
        self.begin()
        self._load_reference()
        self._look()
        with self.display.stage(self.method.title, config.iterations, self.at.iteration) as tick:
            while not self.over():
                tick(self._iterate())
                self._look()
                self._evaluate_at_tokens()
                if self.at.iteration % config.checkpoint_every == 0 or self._measured():
                    self.save()
                self._leave_if_asked()
        if not self._measured():
            self._evaluate("final")
            self.save()
        return self._finish()

    def _measured(self) -> bool:
        return "final" in self.at.evaluations

    @stopping.keeping_the_last_good
    def begin(self) -> None:
        """The warm start, its evaluation and the first checkpoint; nothing where that is done."""
        self.warm_start()
        if "warm_start" not in self.at.evaluations:
            self._evaluate("warm_start")
            checkpoint.save_policies(self.run_folder.folder / "warm_start", self.policies)
            for learner in self.learners.values():
                learner.begin_reinforcement()
            self.save()

    def warm_start(self, until: int | None = None) -> None:
        """Supervision on the expert's demonstrations, up to step `until` (None: to its end)."""
        config, at = self.config, self.at
        steps = supervised_steps(config)
        last = steps if until is None else min(until, steps)
        if at.warm >= last:
            return
        if at.warm == 0:
            for learner in self.learners.values():
                learner.begin_supervision()
        streams = self.supervision(config.seed, at.warm)
        clock, losses = Clock(), []
        with self.display.stage("warm start", steps, at.warm) as tick:
            while at.warm < last:
                lr = cosine(at.warm, steps, config.warm_lr)
                for name, stream in streams.items():
                    if self.demonstrations.shown_to(name, at.warm):
                        losses.append(self.learners[name].imitate(next(stream), lr))
                at.warm += 1
                self._book_supervision(clock)
                if at.warm % 50 == 0 or at.warm == last:
                    loss = float(np.mean(losses))
                    losses.clear()
                    self.run_folder.log("warm_start", at.warm, {"loss": loss, "lr": lr})
                    tick({"loss": loss}, at.warm)
                else:
                    tick(None, at.warm)
                if at.warm % _WARM_SAVE == 0 and at.warm < steps:
                    self.save()
                self._leave_if_asked()
        self._book_supervision(clock)
        for policy in self.policies.values():
            policy.forget()

    def _book_supervision(self, clock: Clock) -> None:
        """With every step, so that each checkpoint knows what was spent until then."""
        seconds, cpu_seconds = clock.read()
        self.at.warm_seconds += seconds
        self.at.warm_cpu_seconds += cpu_seconds

    def supervision(self, seed: int, start: int) -> dict[str, Iterator[TokenBatch]]:
        """Each policy's batches of demonstrations from supervised step `start` on."""
        streams = self.demonstrations.batches(self.policies, seed, start)
        self.at.demo_steps = self.demonstrations.steps
        return streams

    def over(self) -> str:
        """Why learning is over; asked between iterations, so the last may exceed a budget."""
        return spent(self.config, self.at)

    def _draw(self, count: int, rng: np.random.Generator) -> list[str]:
        index = rng.choice(len(self.task_pool), count, replace=count > len(self.task_pool))
        return [self.task_pool[i] for i in index]

    def _iterate(self) -> dict[str, float]:
        config, at = self.config, self.at
        clock, self.mark = Clock(), stopping.Mark.of(self)
        # Each iteration begins with an empty cache: the first after a resumption is like any other.
        forget(self.agent)
        drawn = self.team.agree(self._draw(config.tasks, self.rng))
        task_ids = self.team.share(drawn)
        first = self.team.share(range(len(drawn)))[0]
        done = self._iteration(task_ids, first).pooled(self.team, len(task_ids))
        at.iteration += 1
        at.env_steps += done.env_steps
        at.tokens += done.tokens
        seconds, cpu_seconds = clock.read()
        at.learn_seconds += seconds
        at.learn_cpu_seconds += cpu_seconds
        self.mark = None
        if self.rollouts is not None:
            self.run_folder.log("rollout", at.iteration, self.rollouts.take())
        for phase, metrics in done.metrics.items():
            work = {"env_steps_total": at.env_steps, "tokens_total": at.tokens}
            times = {"seconds": seconds, "cpu_seconds": cpu_seconds}
            self.run_folder.log(phase, at.iteration, {**metrics, **work, **times})
        if at.iteration % config.checkpoint_every == 0:
            # Of different groups, so that four tasks are seen and not one four times.
            few = done.episodes[:: max(1, len(done.episodes) // 4)][:4]
            self.run_folder.show("train", at.iteration, few, done.candidates)
        last = next(reversed(done.metrics.values()))
        return {"success": last["success"], "dead groups": last["dead_groups"]}

    def _iteration(self, task_ids: Sequence[str], first: int = 0) -> Iteration:
        setting = Setting(
            self.config,
            self.agent,
            self.pool,
            planner=in_role("planner", self.learners),
            executor=in_role("executor", self.learners),
            draw=lambda rng: self._draw(1, rng)[0],
            seed=noise.key("run", self.config.seed, self.at.iteration),
            first=first,
            rng=self.rng,
        )
        return self.method.iterate(setting, task_ids, self.at.iteration)

    # -- evaluation ------------------------------------------------------------------------------

    def _evaluate(self, name: str, *, greedy: bool = True) -> None:
        samples = {"temperature 1": Sample(), **({"greedy": Sample()} if greedy else {})}
        found = self.evaluate(samples=samples, greedy=greedy)
        self.at.evaluations[name] = found
        successes = {"temperature_1": found["success"]}
        if greedy:
            successes["greedy"] = found["greedy"]["success"]
        for kind, sample in samples.items():
            self.run_folder.show(f"evaluation/{name}, {kind}", self.at.iteration, sample.episodes)
        self.run_folder.log(f"evaluation/{name}", self.at.iteration, successes)
        self.display.say(f"{name}: " + "  ".join(f"{k} {v:.3f}" for k, v in successes.items()))

    def _evaluate_at_tokens(self) -> None:
        """Measures what was learned with `eval_at_tokens` tokens, once, when they are written.

        At temperature 1 only. Where learning ends with the same iteration, the final evaluation is
        that measurement.
        """
        at = self.at
        due = 0 < self.config.eval_at_tokens <= at.tokens
        if not due or "at_tokens" in at.evaluations:
            return
        if self.over():
            self._evaluate("final")
            found = {k: v for k, v in at.evaluations["final"].items() if k != "greedy"}
        else:
            self._evaluate("at_tokens", greedy=False)
            found = at.evaluations["at_tokens"]
        work = {"tokens": at.tokens, "env_steps": at.env_steps}
        at.evaluations["at_tokens"] = {**found, "work": work}

    def evaluate(
        self,
        agent: HiMACAgent | None = None,
        samples: Mapping[str, Sample] | None = None,
        *,
        greedy: bool = True,
    ) -> dict[str, Any]:
        """Held-out success at temperature 1 and (if asked) greedy, with each task's result."""
        players = agent or self.agent
        return measured(self, players, samples or {}, greedy=greedy)

    def _look(self) -> None:
        """Success on the panel, where it is due: logged, and the best checkpoint by it kept."""
        at, panel = self.at, self.panel
        if not panel.due(at):
            return
        with self.display.stage("panel", len(panel.task_ids)):
            values, label = panel.look(self.agent, at)
        self.run_folder.log("panel", at.iteration, values)
        if label:
            checkpoint.save_policies(self.run_folder.folder / BEST, self.policies, label)
        self.team.wait()

    def beside(self, config: TrainConfig, folder: Path, *, resume: bool) -> Trainer:
        """Another run, for a baseline."""
        return Trainer(config, folder, resume=resume, console=self.console)

    def _load_reference(self) -> None:
        for name, learner in self.learners.items() if self.config.kl else ():
            learner.reference = parts.reference(
                self.policies[name],
                self.run_folder.folder / "warm_start" / name,
                self.config,
                begun=self.at.iteration > 0 if self.own_agent else None,
            )

    # -- checkpoints -----------------------------------------------------------------------------

    def save(self) -> None:
        """Writes a checkpoint; of several processes all call it."""
        self.at.rng = dict(self.rng.bit_generator.state)
        self.at.lines = self.run_folder.lines
        checkpoint.save(
            self.run_folder.checkpoints,
            self.at.warm + self.at.iteration,
            asdict(self.at),
            self.policies,
            {name: learner.optimizer for name, learner in self.learners.items()},
            {n: x.critic for n, x in self.learners.items() if x.critic is not None},
        )
        self.team.wait()

    def _leave_if_asked(self) -> None:
        """Where a run can be left without losing anything."""
        if self.stop.is_set():
            self.save()
            raise KeyboardInterrupt

    def _restore(self, path: Path) -> None:
        with reading(path / "state.json"):
            self.at = Progressed(**checkpoint.read_state(path)["state"])
            self.rng.bit_generator.state = self.at.rng
        self.run_folder.rewind(self.at.lines)
        for name, learner in self.learners.items():
            if "warm_start" in self.at.evaluations:
                learner.begin_reinforcement()
            else:
                learner.begin_supervision()
            if self._at_warm_start():
                continue
            checkpoint.restore_optimizer(path, name, learner.optimizer)
            if learner.critic is not None:
                checkpoint.restore_critic(path, name, learner.critic)
        if self._measured() and not self.over():
            self._extend()

    def _at_warm_start(self) -> bool:
        """Supervision has ended and no iteration has been made.

        Optimisers and critics are as new then, and what was saved of them may be another method's:
        methods that differ in their critics share a warm start.
        """
        return "warm_start" in self.at.evaluations and self.at.iteration == 0

    def _extend(self) -> None:
        """A finished run is to go further: its end becomes one of its evaluations on the way."""
        name = self.at.go_on()
        if self.team.leads:
            folder = self.run_folder.folder
            shutil.rmtree(folder / "supervised", ignore_errors=True)
            (folder / "result.json").unlink(missing_ok=True)
        self.run_folder.rename("evaluation/final", self.at.iteration, f"evaluation/{name}")
        self.display.say(f"the run goes on; its former end is kept as {name}")

    # -- results ---------------------------------------------------------------------------------

    def _finish(self) -> dict[str, Any]:
        for name in self.config.baselines:
            if name not in self.at.evaluations:
                self.display.say(f"beside it: {name}")
                self.at.evaluations[name] = BASELINES[name](self)
                self.save()
        found = result.summarise(asdict(self.at), self.config)
        path = self.run_folder.result(found)
        self.console.print(result.table(found))
        self.console.print(f"run: {self.run_folder.folder}   result: {path}")
        if (page := self.run_folder.report()) is not None:
            self.console.print(f"report: {page}")
        else:
            self.console.print(f"no report: `himac report {self.run_folder.folder}` tells why")
        self.run_folder.close()
        return found
