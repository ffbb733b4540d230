"""HiMAC on TRL: `HiMACTrainer` is TRL's `GRPOTrainer` with HiMAC's episodes and credit.

Install: ``pip install 'himac[hf]' 'trl>=1.16'``

    from himac_agents import TrainConfig
    from himac_agents.adapters.trl import HiMACTrainer
    from trl import GRPOConfig

    settings = TrainConfig(
        method="himac", env="HiMAC-ALFWorld-v0", policy="hf", constrained=False
    )
    args = GRPOConfig("out", max_steps=100, learning_rate=1e-6, num_generations=2)
    trainer = HiMACTrainer("Qwen/Qwen2.5-1.5B-Instruct", settings, args)
    trainer.train()

What is whose:

- HiMAC's: the tasks, the episodes (planner, executor, `<sub_done>`), which tokens carry which
  advantage, and the order of the phases. One model plays all roles.
- TRL's: the model, the optimiser, the loss over tokens (`loss_type`, `epsilon`, ...), adapters by
  `peft_config`, checkpoints, logging. Rewards, datasets and generation of TRL are not used.
- One phase is one optimiser step, `num_iterations` of them where that is more; a phase without
  evidence is none. `max_steps` counts optimiser steps: two an iteration of `himac`.
- Sequences are spread over `gradient_accumulation_steps` batches, each as large as it must be.

A checkpoint holds how many iterations are done; one that was under way is played anew.
`himac eval` plays the saved model: ``himac eval HiMAC-ALFWorld-v0 --agent out/checkpoint-100``.

What was run: TRL 1.16 on a CPU, small models, in one process. Never run: a GPU, several processes,
sharding, TRL's vLLM.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

try:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer
except ImportError as error:
    from himac_envs.errors import explained

    raise explained(error, "HiMAC on TRL") from error

from himac_agents import distributed
from himac_agents.adapters.handover import (
    PATIENCE,
    Handover,
    Phase,
    checked,
    insist_on_one_temperature,
    no_evidence,
    setting_of,
)
from himac_agents.agents.agent import assemble, forget
from himac_agents.algorithms.batching import rows, token_batch
from himac_agents.algorithms.iteration import Iteration
from himac_agents.algorithms.methods import method_of
from himac_agents.algorithms.passes import empty
from himac_agents.config import TrainConfig
from himac_agents.policies.base import TokenBatch
from himac_agents.policies.hf import HFPolicy
from himac_agents.prompts import make_prompts
from himac_agents.rollouts.pool import EnvPool, make_pool

_STATE = "himac.json"
_NO_REFERENCE = "a penalty towards a reference is not computed here: leave it at 0"


class HiMACTrainer(GRPOTrainer):
    """See the module's text.

    Args:
        model: As TRL takes it: a name, a folder or a model.
        settings: HiMAC's: `method`, `env`, `tasks`, `blueprints`, `executions`, prompts, limits.
            Those of warm start, optimiser and evaluation mean nothing here.
        args: TRL's.
        envs: A pool of environments in place of those that the settings name.
        **further: More for `GRPOTrainer`: `processing_class`, `peft_config`, `callbacks`, ...

    Raises:
        ValueError: Settings that TRL's loss knows nothing of, or that mean nothing together.
    """

    def __init__(
        self,
        model: Any,
        settings: TrainConfig,
        args: GRPOConfig,
        *,
        envs: EnvPool | None = None,
        **further: Any,
    ) -> None:
        self.himac = settings = _checked(settings, args)
        self._method = method_of(settings)
        flat = not self._method.hierarchical
        self.pool = envs or make_pool(settings, flat=flat, sub_done=self._method.sub_done)
        self.task_ids = self.pool.task_ids("train")
        unused = Dataset.from_dict({"prompt": ["-"] * max(1, args.generation_batch_size)})
        super().__init__(model, _no_reward, args, unused, **further)
        own = self.accelerator.unwrap_model(self.model)
        self.policy = HFPolicy(own, self.processing_class)
        prompts = make_prompts(settings, sub_done=self._method.sub_done)
        self.agent = assemble(settings, {"policy": self.policy}, prompts, not flat)
        self.iterations = 0
        self._handover = Handover(self._play)
        self._batches: Iterator[dict[str, Any]] = iter(())

    # -- TRL's hooks -----------------------------------------------------------------------------

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """TRL's training, with a method that ends with it."""
        try:
            return super().train(*args, **kwargs)
        finally:
            self._handover.close()
            self._batches = iter(())

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        """The next part of a phase, played when it is asked for."""
        if not self.model.training:
            raise ValueError(
                "HiMACTrainer does not evaluate: `himac eval ENV --agent CHECKPOINT` does"
            )
        while (found := next(self._batches, None)) is None:
            self._batches = self._cut(self._live_phase())
        return found

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial=trial), f"checkpoint-{self.state.global_step}")
            (folder / _STATE).write_text(json.dumps({"iterations": self.iterations}), "utf-8")

    def _load_optimizer_and_scheduler(self, checkpoint: Any) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            held = json.loads(Path(checkpoint, _STATE).read_text("utf-8"))
            self.iterations = int(held["iterations"])

    # -- HiMAC's side ----------------------------------------------------------------------------

    def _play(self, learner: Handover) -> None:
        """One iteration, in the method's thread."""
        team, config = distributed.team(), self.himac
        rng = np.random.default_rng([config.seed, self.iterations])
        count = len(self.task_ids)
        drawn = rng.choice(count, config.tasks, replace=config.tasks > count)
        places = team.share(range(config.tasks))
        forget(self.agent)
        setting = setting_of(
            config,
            self.agent,
            self.pool,
            learner,
            self.iterations,
            lambda own: self.task_ids[int(own.integers(count))],
            rng,
            places[0],
        )
        mine = [self.task_ids[int(drawn[place])] for place in places]
        done: Iteration = self._method.iterate(setting, mine, self.iterations)
        self.iterations += 1
        for phase, metrics in done.pooled(team, len(mine)).metrics.items():
            for key, value in metrics.items():
                self._metrics["train"][f"{phase}/{key}"].append(float(value))

    def _live_phase(self) -> TokenBatch:
        """The rows of the next phase that has evidence in any process."""
        for _ in range(PATIENCE):
            self.model.eval()
            self.policy.forget()
            phase = self._handover.next()
            self.model.train()
            batch = self._rows(phase)
            live = 0 if batch is None else len(batch)
            phase.metrics["sequences"] = float(len(phase.segments))
            if distributed.team().add({"live": float(live)})["live"]:
                return empty() if batch is None else batch
        raise no_evidence(PATIENCE)

    def _rows(self, phase: Phase) -> TokenBatch | None:
        if not phase.segments:
            return None
        batch = token_batch(phase.segments, pad=self.policy.pad_id)
        live = np.flatnonzero((batch.advantages != 0).any(axis=1))
        return rows(batch, live) if len(live) else None

    def _cut(self, batch: TokenBatch) -> Iterator[dict[str, Any]]:
        """A phase as TRL's batches: `gradient_accumulation_steps` of them an optimiser step."""
        parts = self.args.gradient_accumulation_steps
        tokens = distributed.team().add({"tokens": float(batch.mask.sum())})["tokens"]
        # TRL divides by the tokens of a generation, of which this is one step's part.
        share = self.args.steps_per_generation / parts
        order = np.argsort(-batch.lengths, kind="stable")
        cut = [rows(batch, order[n::parts]) for n in range(parts) if n < len(order)]
        cut += [empty()] * (parts - len(cut))
        inputs = [self._inputs(part, tokens * share) for part in cut]
        if self.num_iterations > 1:
            for one in inputs:
                one["old_per_token_logps"] = self._old(one)
        for _ in range(self.num_iterations):
            yield from inputs

    def _inputs(self, part: TokenBatch, tokens: float) -> dict[str, Any]:
        """The first token is TRL's prompt: nothing predicts it."""
        there = np.arange(part.token_ids.shape[1])[None] < part.lengths[:, None]

        def tensor(values: Any, dtype: torch.dtype) -> Tensor:
            return torch.as_tensor(values, dtype=dtype, device=self.accelerator.device)

        ids, attention = tensor(part.token_ids, torch.long), tensor(there, torch.long)
        return {
            "prompt_ids": ids[:, :1],
            "prompt_mask": attention[:, :1],
            "completion_ids": ids[:, 1:],
            "completion_mask": attention[:, 1:],
            "tool_mask": tensor(part.mask, torch.long)[:, 1:],
            "advantages": tensor(part.advantages, torch.float32)[:, 1:],
            "num_items_in_batch": tensor(tokens, torch.float32),
        }

    def _old(self, inputs: dict[str, Any]) -> Tensor:
        """Log-probabilities [rows, time] as they are before the phase's first step."""
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
        mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
        with torch.no_grad():
            found = self._get_per_token_logps_and_entropies(
                self.model, ids, mask, inputs["completion_ids"].size(1)
            )
        logprobs: Tensor = found[0]
        return logprobs


def _no_reward(completions: Any, **further: Any) -> list[float]:
    """TRL wants a reward; HiMAC's credit is none of one completion's."""
    return [0.0] * len(completions)


def _checked(settings: TrainConfig, args: GRPOConfig) -> TrainConfig:
    """The settings as they are run."""
    settings = checked(settings, "TRL", _NO_REFERENCE)
    if args.use_vllm:
        raise ValueError("use_vllm=True: here the trained model itself samples: leave use_vllm out")
    if args.beta:
        raise ValueError(f"beta={args.beta}: {_NO_REFERENCE}")
    insist_on_one_temperature(settings, args.temperature, "TRL")
    return settings
