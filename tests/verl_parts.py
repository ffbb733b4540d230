"""What verl's trainer works with, in this process: a small model for its servers and workers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import torch
from tensor_store import Store
from verl.trainer.ppo import core_algos
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ
from verl.workers.config import FSDPActorConfig
from verl.workers.rollout.replica import TokenOutput

from himac_agents.policies.base import Prompt, Sampling
from himac_agents.policies.hf import HFPolicy


class Asked:
    """verl's server: a model of this process; it notes what it is asked."""

    def __init__(self, model: Path) -> None:
        self.policy = HFPolicy.load(model, device="cpu", dtype="float32")
        self.params: list[dict[str, Any]] = []

    async def generate(
        self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any], **_: Any
    ) -> TokenOutput:
        self.params.append(sampling_params)
        prompt = Prompt((), prompt_ids, noise=int(sampling_params["seed"]))
        how = Sampling(sampling_params["temperature"], sampling_params["max_tokens"])
        (said,) = self.policy.generate([prompt], how)
        steps = {"min_global_steps": 1, "max_global_steps": 1}
        return TokenOutput(
            token_ids=list(said.token_ids), log_probs=list(said.logprobs), extra_fields=steps
        )


def worker_of(config: Any, asked: Asked) -> Any:
    """verl's worker, outside of Ray."""
    worker = AgentLoopWorkerTQ.__ray_metadata__.modified_class(config, asked)
    worker.reward_loop_worker_handles = None
    return worker


class Loops:
    """verl's manager of agent loops: one worker, in this process."""

    def __init__(self, worker: Any) -> None:
        self.worker = worker

    def generate_sequences(self, batch: Any) -> None:
        async def all_of_it() -> None:
            await self.worker.generate_sequences(batch)
            await asyncio.gather(*self.worker.background_tasks)

        asyncio.run(all_of_it())


class Workers:
    """verl's sharded workers: the model that learns, with verl's loss and plain descent."""

    def __init__(self, policy: Any, store: Store) -> None:
        self.model, self.store = policy.model, store
        self._dispatch_info = {"actor": [0]}
        self.optimiser = torch.optim.SGD(self.model.parameters(), lr=1.0)
        self.steps: list[list[str]] = []

    def _logprobs(self, row: dict[str, Any]) -> torch.Tensor:
        """Of each token but the first, in the place before it; the last place says nothing."""
        ids = row["input_ids"]
        said = self.model(ids[None]).logits[0, :-1].log_softmax(-1)
        return torch.cat([said.gather(-1, ids[1:, None])[:, 0], torch.zeros(1)])

    def compute_log_prob(self, batch: Any) -> Any:
        rows = [self.store.rows["train"][key] for key in batch.keys]
        with torch.no_grad():
            found = [self._logprobs(row) for row in rows]
        for row, logprobs in zip(rows, found, strict=True):
            row["log_probs"], row["entropy"] = logprobs, torch.zeros_like(logprobs)
        return batch

    def update_actor(self, batch: Any) -> dict[str, Any]:
        self.steps.append(list(batch.keys))
        rows = [self.store.rows["train"][key] for key in batch.keys]
        longest = max(len(row["responses"]) for row in rows)

        def padded(values: list[torch.Tensor]) -> torch.Tensor:
            return torch.stack(
                [torch.nn.functional.pad(v.float(), (0, longest - len(v))) for v in values]
            )

        now = [self._logprobs(r)[len(r["prompts"]) - 1 : -1] for r in rows]
        config = FSDPActorConfig(strategy="fsdp", rollout_n=1, ppo_micro_batch_size_per_gpu=4)
        loss, _ = core_algos.compute_policy_loss_vanilla(
            padded([row["old_log_probs"] for row in rows]),
            padded(now),
            padded([row["advantages"] for row in rows]),
            padded([row["response_mask"] for row in rows]),
            config=config,
        )
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()
        return {"metrics": {"mfu": [0.0], "pg_loss": [float(loss.detach())]}}

    def save_checkpoint(self, path: str, *_: Any, **__: Any) -> None:
        Path(path).mkdir(parents=True)
        torch.save(self.model.state_dict(), Path(path) / "model.pt")

    def load_checkpoint(self, local_path: str, **_: Any) -> None:
        self.model.load_state_dict(torch.load(Path(local_path) / "model.pt"))


class Data(list[dict[str, Any]]):
    """verl's loader of rows."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, _: Any) -> None:
        pass


class Quiet:
    """Whatever else a trainer calls: it does nothing."""

    reward_loop_worker_handles = ()

    def sleep_replicas(self) -> None:
        pass
