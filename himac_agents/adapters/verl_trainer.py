"""The trainer of `himac_agents.adapters.verl`: verl's own, told by a method what to play and learn.

verl (0.9) gives every segment of an episode the last one's reward, and what it computes advantages
from does not say which level wrote a sequence. So a method's credit comes in where advantages are
computed, and the method itself is asked for every step: it has episodes played by verl's agent
loops, compares them, and hands over the segments of a phase, whose rows are the step's batch.

One phase is one step of verl's, with as many optimiser steps as mini-batches fit into it
(``ppo_mini_batch_size``, in sequences; ``rollout.n`` stays 1). Phases without evidence are no step.
A checkpoint holds how many iterations are done, and the tasks of the one under way, which is played
anew.

Registered as ``trainer.v1.trainer_mode=himac``. Run: on a CPU, verl's own trainer, TransferQueue,
agent loop worker and loss, with a small model of this process in place of servers and of the
sharded workers (which verl has for GPUs and NPUs only). Never run: those.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from himac_agents.adapters.away import job_to_json, settings_to_text, tokens_of
from himac_agents.adapters.handover import PATIENCE, Handover, no_evidence, setting_of
from himac_agents.adapters.verl import INSTALL, NAME, settings_in
from himac_agents.agents.agent import assemble
from himac_agents.algorithms.iteration import Iteration
from himac_agents.algorithms.methods import method_of
from himac_agents.files import write_atomically
from himac_agents.policies.base import Completion, Prompt, Sampling
from himac_agents.prompts import make_prompts
from himac_agents.rollouts import serial
from himac_agents.rollouts.pool import AwayPool, Job
from himac_agents.rollouts.types import Episode, Segment
from himac_envs.adapters.errors import MissingStackError

try:
    import torch
    import transfer_queue as tq
    from omegaconf import open_dict
    from tensordict import TensorDict
    from transfer_queue import KVBatchMeta
    from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
    from verl.trainer.ppo.v1.trainer_base import register_trainer
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
    from verl.utils import tensordict_utils as tu
except ImportError as error:
    raise MissingStackError("verl_trainer", INSTALL, error, __package__) from error

_STATE = "himac.json"


class _Elsewhere:
    """The policy of the trainer's process, which plays nothing."""

    async def sample(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """See `Policy.sample`."""
        raise RuntimeError("episodes are played by verl's agent loops")


class _Phases(ReplayBuffer):  # type: ignore[misc]
    """verl's buffer; a step's batch is a phase where one is ready, and what was played else."""

    ready: KVBatchMeta | None = None

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> Any:
        """See `ReplayBuffer.sample`."""
        if partition_id == "train" and self.ready is not None:
            batch, self.ready = self.ready, None
            return batch, {}
        return super().sample(global_steps, partition_id, batch_size)


@register_trainer("himac")
class HiMACTrainer(PPOTrainerSync):  # type: ignore[misc]
    """See the module's text.

    Args:
        config: verl's configuration, with ``himac.settings``.

    Raises:
        ValueError: Settings that verl does not know, or that mean nothing together.
    """

    def __init__(self, config: Any) -> None:
        self.himac = settings_in(config)
        self.himac = self.himac.replace(tasks=int(config.data.train_batch_size))
        if config.algorithm.use_kl_in_reward:
            raise ValueError(
                "algorithm.use_kl_in_reward=True: HiMAC's advantages are those of its episodes; "
                "actor_rollout_ref.actor.use_kl_loss=True adds the penalty to the loss"
            )
        correction = config.algorithm.get("rollout_correction") or {}
        if correction.get("rollout_is") or correction.get("rollout_rs"):
            raise ValueError(
                "algorithm.rollout_correction: verl applies rollout_is and rollout_rs with its "
                "own advantages, which the method replaces: leave both null"
            )
        with open_dict(config):
            # Workers may be on machines that do not have the file.
            config.himac.text = settings_to_text(self.himac)
        super().__init__(config)
        if self.use_critic:
            raise ValueError(
                "verl would train a critic that nothing uses: set algorithm.adv_estimator=grpo"
            )
        self._method = method_of(self.himac)
        prompts = make_prompts(self.himac, sub_done=self._method.sub_done)
        hierarchical = self._method.hierarchical
        self._agent = assemble(self.himac, {"policy": _Elsewhere()}, prompts, hierarchical)
        self.iterations = 0
        self._tasks: list[str] = []
        self._handover = Handover(self._play, self._played)
        self._pool = AwayPool(self._handover.play, lambda split: self._known())
        self._credit: dict[str, list[float]] = {}
        #: What lies in verl's queue of this phase: its tags by its keys.
        self._kept: dict[str, dict[str, Any]] = {}
        self._told: dict[str, float] = {}

    def _build_replay_buffer(self) -> _Phases:
        # In all that the mode decides, this trainer is the synchronous one.
        self.trainer_mode = "sync"
        sampler = self.config.trainer.v1.sampler
        return _Phases(
            trainer_mode="sync",
            trainer_config=self.config.trainer.v1.sync,
            max_off_policy_threshold=sampler.max_off_policy_threshold,
            max_off_policy_strategy=sampler.max_off_policy_strategy,
            sampler_kwargs=sampler.sampler_kwargs,
            poll_interval=0.2,
        )

    # -- verl's hooks ----------------------------------------------------------------------------

    def fit(self, agent_loop_manager: Any) -> None:
        """See `PPOTrainer.fit`; the method ends with it."""
        try:
            super().fit(agent_loop_manager)
        finally:
            self._handover.close()

    def prepare_step(self) -> dict[str, float]:
        """Lets the method play until it has a phase to learn from."""
        for _ in range(PATIENCE):
            phase = self._handover.next()
            live = [s for s in phase.segments if any(turn.teaches for turn in s.turns)]
            phase.metrics |= {"sequences": float(len(phase.segments)), "live": float(len(live))}
            self._credit = {
                name: one.advantages
                for segment in live
                for name, one in zip(segment.kept, tokens_of(segment), strict=True)
            }
            tags = [self._kept.pop(key) for key in self._credit]
            if self._kept:  # played, and not learned from
                tq.kv_clear(keys=list(self._kept), partition_id="train")
                self._kept = {}
            if tags:
                keys = list(self._credit)
                self.replay_buffer.ready = KVBatchMeta(keys=keys, tags=tags, partition_id="train")
                told, self._told = self._told, {}
                found = {f"himac/{phase.name}/{k}": v for k, v in phase.metrics.items()}
                return {**told, **found}
        raise no_evidence(PATIENCE)

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        """The method's advantages, token by token; rows that only fill the batch have none."""
        masks = tq.kv_batch_get(
            keys=batch.keys, partition_id=batch.partition_id, select_fields=["response_mask"]
        )["response_mask"]
        lengths = masks.offsets().diff().tolist()
        own = []
        for name, length in zip(batch.keys, lengths, strict=True):
            given = self._credit.get(name, [0.0] * length)
            assert len(given) == length, f"{name}: {len(given)} advantages, {length} tokens"
            own.append(torch.tensor(given, dtype=torch.float32))
        advantages = torch.nested.as_nested_tensor(own, layout=torch.jagged)
        fields = TensorDict(
            {"advantages": advantages, "returns": advantages.clone()}, batch_size=len(batch.keys)
        )
        found: KVBatchMeta = tq.kv_batch_put(
            keys=batch.keys, partition_id=batch.partition_id, fields=fields
        )
        return found

    def _save_checkpoint(self) -> None:
        folder = Path(self.config.trainer.default_local_dir, f"global_step_{self.global_steps}")
        state = {"iterations": self.iterations, "tasks": self._tasks}
        write_atomically(folder / _STATE, json.dumps(state))
        super()._save_checkpoint()

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        if self.global_steps:
            trainer = self.config.trainer
            place = Path(trainer.default_local_dir, f"global_step_{self.global_steps}")
            if trainer.resume_mode == "resume_path":
                place = Path(trainer.resume_from_path)
            held = json.loads((place / _STATE).read_text("utf-8"))
            self.iterations, self._tasks = int(held["iterations"]), list(held["tasks"])

    # -- HiMAC's side ----------------------------------------------------------------------------

    def _play(self, learner: Handover) -> None:
        """One iteration, in the method's thread."""
        if not self._tasks:
            self._tasks = [str(task) for task in self._next_train_batch()["task_id"]]
        config, number = self.himac, self.iterations
        known = self._known()
        setting = setting_of(
            config,
            self._agent,
            self._pool,
            learner,
            number,
            lambda own: known[int(own.integers(len(known)))],
            np.random.default_rng([config.seed, number]),
        )
        done: Iteration = self._method.iterate(setting, self._tasks, number)
        self.iterations, self._tasks = number + 1, []
        for phase, metrics in done.metrics.items():
            self._told |= {f"himac/{phase}/{k}": float(v) for k, v in metrics.items()}

    def _known(self) -> list[str]:
        """The tasks of verl's data set."""
        return [str(task) for task in self.train_dataset.dataframe["task_id"]]

    def _played(self, jobs: Sequence[Job]) -> list[Episode]:
        """Has jobs played by verl's agent loops; an episode each."""
        names = [uuid4().hex for _ in jobs]
        made: dict[str, Any] = {
            "uid": names,
            "himac": [job_to_json(job) for job in jobs],
            "raw_prompt": [[{"role": "user", "content": job.request.task_id}] for job in jobs],
            "agent_name": [NAME] * len(jobs),
            "index": list(range(len(jobs))),
            "__rollout_n__": [1] * len(jobs),
        }
        columns = {name: _column(values) for name, values in made.items()}
        rows = tu.get_tensordict(columns)
        tu.assign_non_tensor_data(rows, "global_steps", self.global_steps)
        self._submit_batch_to_rollout(rows)
        batch, _ = self.replay_buffer.sample(self.global_steps, "train", len(jobs))
        self._kept |= zip(batch.keys, batch.tags, strict=True)
        own: dict[str, list[str]] = {name: [] for name in names}
        for key in sorted(batch.keys, key=lambda key: int(key.rsplit("_", 1)[1])):
            own[key.split("_")[0]].append(key)
        firsts = [keys[0] for keys in own.values() if keys]
        fields = tq.kv_batch_get(keys=firsts, partition_id="train", select_fields=["extra_fields"])[
            "extra_fields"
        ]
        plain = (getattr(one, "data", one) for one in fields)
        records = {key: str(one["himac"]) for key, one in zip(firsts, plain, strict=True)}
        found = []
        for job, keys in zip(jobs, own.values(), strict=True):
            if not keys:
                error = "verl's agent loop failed: its worker's log says why"
                found.append(Episode(job.request, error=error))
                continue
            episode = serial.from_json(json.loads(records[keys[0]]))
            _name(episode.segments, keys)
            found.append(episode)
        if all(episode.error for episode in found):
            raise RuntimeError(f"no episode could be played: {found[0].error}")
        return found


def _name(segments: Sequence[Segment], keys: Sequence[str]) -> None:
    """Tells segments under which keys verl keeps their sequences."""
    left = iter(keys)
    for segment in segments:
        segment.kept = [next(left) for _ in tokens_of(segment)]


def _column(values: Sequence[Any]) -> Any:
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found
