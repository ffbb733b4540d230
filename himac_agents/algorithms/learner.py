"""What turns sequences into updates of one policy: supervision and the policy gradient."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from himac_agents.algorithms import losses
from himac_agents.algorithms.batching import by_length, join, rows, token_batch
from himac_agents.config import TrainConfig
from himac_agents.distributed import team
from himac_agents.policies.base import Learnable, TokenBatch
from himac_agents.rollouts.types import Segment


class Learner:
    """One policy and its optimiser.

    Args:
        policy: What learns.
        config: Rates, clips, weights.
        reference: A frozen policy that the KL penalty holds on to; needed when `config.kl` > 0.
    """

    def __init__(
        self, policy: Learnable, config: TrainConfig, reference: Learnable | None = None
    ) -> None:
        self.policy, self.config, self.reference = policy, config, reference
        self.team = team()
        self.optimizer = self._optimizer(config.lr)
        self.updates = 0

    def _optimizer(self, lr: float) -> torch.optim.AdamW:
        return torch.optim.AdamW(
            self.policy.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.0
        )

    # -- supervision -----------------------------------------------------------------------------

    def begin_supervision(self) -> None:
        """A fresh optimiser for the warm start."""
        self.optimizer = self._optimizer(self.config.warm_lr)

    def begin_reinforcement(self) -> None:
        """A fresh optimiser for reinforcement learning."""
        self.optimizer = self._optimizer(self.config.lr)

    def imitate(self, batch: TokenBatch, lr: float) -> float:
        """One supervised step on a batch whose masked tokens are to be imitated.

        Returns:
            The mean cross-entropy in nats a token.
        """
        self._set_rate(lr)
        weights = losses.token_weights(batch.mask, "token")
        found = 0.0
        for index in self._parts(batch):
            part = batch if index is None else rows(batch, index)
            weight = weights if index is None else weights[index][:, : part.mask.shape[1]]
            logp, _ = self.policy.logprobs_and_entropy(part)
            loss = losses.cross_entropy(logp, torch.as_tensor(weight, device=logp.device))
            loss.backward()  # type: ignore[no-untyped-call]
            found += float(loss.detach())
        self._step()
        return self.team.add({"loss": found})["loss"]

    def _parts(self, batch: TokenBatch) -> Iterator[NDArray[np.int64] | None]:
        """This process's share of a batch: None is all of it."""
        if self.team.size == 1:
            yield None
        elif share := self.team.share(range(len(batch))):
            yield np.asarray(share, dtype=np.int64)

    def _set_rate(self, lr: float) -> None:
        """The learning rate of the next steps, whatever rate a restored optimiser came with."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    # -- reinforcement ---------------------------------------------------------------------------

    def reinforce(
        self,
        segments: Sequence[Segment],
        advantages: Sequence[float] | Mapping[int, float],
        rng: np.random.Generator,
    ) -> dict[str, float]:
        """Policy-gradient updates on one phase's segments.

        Segments whose advantage is 0 throughout are left out (unless a KL penalty holds them);
        where nothing is left, nothing moves, the optimiser's momentum included.

        Args:
            segments: Sampled sequences.
            advantages: One a segment, or by `id(turn)` one a turn.
            rng: Splits the segments into mini-batches.

        Returns:
            Metrics: loss, entropy, clipped share, KL estimates, gradient norm, and how far
            log-probabilities in training are from those of the rollout.
        """
        config = self.config
        # A run may be forked from a warm start that was saved under another learning rate.
        self._set_rate(config.lr)
        own = token_batch(segments, advantages) if segments else None
        batch = join(self.team.gather(own))
        metrics: dict[str, float] = {"sequences": float(0 if batch is None else len(batch))}
        metrics["updates"] = 0.0
        if batch is None:
            return metrics
        if config.kl == 0.0:
            live = np.flatnonzero((batch.advantages != 0).any(axis=1))
        else:
            live = np.arange(len(batch))
        metrics["live"] = float(len(live))
        if len(live) == 0:
            return metrics
        if config.kl > 0.0:
            batch.extra["reference"] = self._reference_logprobs(batch)
        # The mean is over all sequences of the phase, those without an advantage included: a phase
        # in which next to nothing differed is to move the weights next to not at all.
        share = len(live) / len(batch)
        sums: dict[str, list[float]] = {}
        for _ in range(config.epochs):
            # A few live sequences are no ground for many steps.
            count = max(1, min(config.minibatches, len(live) // config.least_minibatch))
            parts = np.array_split(self.team.agree(rng.permutation(live)), count)
            for part in parts:
                for key, value in self._minibatch(rows(batch, part), share).items():
                    sums.setdefault(key, []).append(value)
        metrics["updates"] = float(len(sums["loss"]))
        for key, values in sums.items():
            # Only before the first update are training and rollout the same weights.
            metrics[key] = values[0] if key == "logprob_gap" else float(np.mean(values))
        self.policy.forget()
        return metrics

    def _minibatch(self, batch: TokenBatch, share: float) -> dict[str, float]:
        config = self.config
        weights = losses.token_weights(batch.mask, config.loss_mean) * np.float32(share)
        sums = {"loss": 0.0, "clipped": 0.0, "approx_kl": 0.0, "entropy": 0.0, "kl": 0.0}
        gap = 0.0
        for index in self._micro_batches(batch):
            micro = rows(batch, index)
            logp, entropy = self.policy.logprobs_and_entropy(micro)
            weight = torch.as_tensor(weights[index][:, : logp.shape[1]], device=logp.device)
            old = torch.as_tensor(micro.old_logprobs, device=logp.device)
            advantage = torch.as_tensor(micro.advantages, device=logp.device)
            part = losses.clipped_policy_gradient(
                logp, old, advantage, weight, config.clip, config.clip_high
            )
            loss = part.loss
            if config.kl > 0.0:
                reference = torch.as_tensor(micro.extra["reference"], device=logp.device)
                penalty = losses.kl_penalty(logp, reference, weight)
                sums["kl"] += float(penalty.detach())
                loss = loss + config.kl * penalty
            loss.backward()  # type: ignore[no-untyped-call]
            with torch.no_grad():
                sums["loss"] += float(loss)
                sums["clipped"] += float(part.clipped)
                sums["approx_kl"] += float(part.approx_kl)
                sums["entropy"] += float((weight * entropy).sum())
                gap = max(gap, float(((logp - old).abs() * (weight > 0)).max()))
        shown = {key: value / share for key, value in self.team.add(sums).items()}
        gap = max(self.team.gather(gap))
        return {**shown, "logprob_gap": gap, "grad_norm": self._step()}

    def _micro_batches(self, batch: TokenBatch) -> Iterator[NDArray[np.int64]]:
        """This process's share of a mini-batch, cut so that it fits into memory."""
        micro = list(by_length(batch.lengths, self.config.micro_tokens))
        if len(micro) < self.team.size:
            # Smaller pieces, so that every process has one.
            tokens = int(batch.lengths.sum()) // self.team.size
            micro = list(by_length(batch.lengths, tokens))
        yield from micro[self.team.rank :: self.team.size]

    def _reference_logprobs(self, batch: TokenBatch) -> Any:
        if self.reference is None:
            raise ValueError("kl > 0 needs a reference policy")
        found = np.zeros_like(batch.old_logprobs)
        with torch.no_grad():
            for index in self._micro_batches(batch):
                micro = rows(batch, index)
                logp, _ = self.reference.logprobs_and_entropy(micro)
                found[index, : logp.shape[1]] = logp.cpu().numpy()
        return self.team.add_array(found)

    def _step(self) -> float:
        self.team.add_gradients(self.policy.parameters())
        norm = torch.nn.utils.clip_grad_norm_(
            self.policy.parameters(), self.config.max_grad_norm or math.inf
        )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.updates += 1
        return float(norm)


def cosine(step: int, steps: int, peak: float, floor: float = 0.1, warmup: int = 50) -> float:
    """Learning rate: a linear rise over `warmup` steps, then a cosine down to `floor` * peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    along = min(1.0, (step - warmup) / max(1, steps - warmup))
    return peak * (floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * along)))
