"""What turns sequences into updates of one policy: supervision and the policy gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from himac_agents.algorithms import critic as critics
from himac_agents.algorithms import finite, losses, mismatch, optimiser, passes
from himac_agents.algorithms.batching import by_length, join, rows, starts, token_batch
from himac_agents.algorithms.credit import settled
from himac_agents.algorithms.finite import NonFiniteError
from himac_agents.algorithms.methods import resolve
from himac_agents.config import TrainConfig
from himac_agents.distributed import is_sharded, local, team
from himac_agents.policies.base import Learnable, TokenBatch
from himac_agents.rollouts.types import Segment

#: The phase of supervision, in errors.
WARM_START = "warm start"


class Learner:
    """One policy and its optimiser.

    Args:
        policy: What learns.
        config: Rates, clips, weights.
        reference: A frozen policy that the KL penalty holds on to; needed when `config.kl` > 0.
        name: The policy's name in its run.
        critic: Makes a module that learns beside it; see `himac_agents.algorithms.critic`.
    """

    def __init__(
        self,
        policy: Learnable,
        config: TrainConfig,
        reference: Learnable | None = None,
        *,
        name: str = "policy",
        critic: Callable[[Any], Any] | None = None,
    ) -> None:
        self.policy, self.reference, self.name = policy, reference, name
        self.config = resolve(config)
        self.kl = settled(self.config.kl, "kl")
        self.clip = settled(self.config.clip, "clip")
        self.clip_high = settled(self.config.clip_high, "clip_high")
        self.critic = None if critic is None else critics.make(critic, policy, config.seed)
        self.team = team()
        self.optimizer = self._optimizer(config.lr)
        self.updates = 0

    def _optimizer(self, lr: float) -> torch.optim.AdamW:
        return optimiser.make(self.policy.parameters(), self._critic_parameters(), lr)

    def _critic_parameters(self) -> list[torch.nn.Parameter]:
        return [] if self.critic is None else list(self.critic.parameters())

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

        Raises:
            NonFiniteError: A number is not finite; nothing has moved.
        """
        self._set_rate(lr)
        weights = losses.token_weights(batch.mask, "token")
        found, trouble = 0.0, None
        passes.begin(self.policy)
        for index, part in passes.whole(batch, self.team, even=passes.in_step(self.policy)):
            weight = passes.part(weights, index, part)
            logp, _ = self.policy.logprobs_and_entropy(part)
            loss = losses.cross_entropy(logp, torch.as_tensor(weight, device=logp.device))
            found += float(loss.detach())
            trouble = trouble or _trouble(float(loss.detach()), logp)
            loss.backward()  # type: ignore[no-untyped-call]
        everywhere = self.team.gather((found, trouble))
        self._refuse(WARM_START, [t for _, t in everywhere])
        self._step(WARM_START)
        return sum(loss for loss, _ in everywhere)

    def _set_rate(self, lr: float) -> None:
        """The learning rate of the next steps, whatever rate a restored optimiser came with."""
        own = self.config.critic_lr
        if own is None:
            own = getattr(self.critic, "lr", None)
        for number, group in enumerate(self.optimizer.param_groups):
            group["lr"] = lr if number == 0 or own is None else float(own)

    # -- reinforcement ---------------------------------------------------------------------------

    def reinforce(
        self, segments: Sequence[Segment], rng: np.random.Generator, phase: str = "flat"
    ) -> dict[str, float]:
        """Policy-gradient updates on one phase's segments, by the advantages of their turns.

        Segments whose advantage is 0 throughout are no evidence: they are left out (unless a KL
        penalty or a critic learns from them) and are not counted when it is decided how many steps
        are made and how large they are. Where nothing is left, the policy does not move, its
        momentum included.

        Args:
            segments: Sampled sequences.
            rng: Splits the segments into mini-batches.
            phase: What is learned, for errors.

        Returns:
            Metrics: loss; means over what the loss is a mean of: entropy, clipped share, KL
            estimates; gradient norm, and how far log-probabilities in training are from those of
            the rollout.

        Raises:
            NonFiniteError: A number is not finite; the step it belonged to was not made.
            ValueError: A turn has no advantage.
        """
        config = self.config
        # A run may be forked from a warm start that was saved under another learning rate.
        self._set_rate(config.lr)
        if any(turn.advantage is None for segment in segments for turn in segment.turns):
            raise ValueError("a turn has no advantage: a method's credit gives one to each")
        states = self.critic is not None
        own = token_batch(segments, states=states) if segments else None
        batch = join(self.team.gather(own))
        metrics: dict[str, float] = {"sequences": float(0 if batch is None else len(batch))}
        metrics["updates"] = 0.0
        if batch is None:
            return metrics
        for name, values in (
            ("an advantage", batch.advantages),
            ("a log-probability of the rollout", batch.old_logprobs),
        ):
            if not np.isfinite(values).all():
                raise NonFiniteError(phase, self.name, f"{name} is not finite")
        alive = (batch.advantages != 0).any(axis=1)
        live = np.flatnonzero(alive)
        metrics["live"] = float(len(live))
        held = np.flatnonzero(~alive)
        if len(live) == 0 and not (states and len(held)):
            return metrics
        passes.begin(self.policy)
        if self.kl > 0.0:
            if self.reference is None:
                raise ValueError("kl > 0 needs a reference policy")
            batch.extra["reference"] = self._logprobs_under(self.reference, batch)
            if not np.isfinite(batch.extra["reference"]).all():
                said = "a log-probability of the reference is not finite"
                raise NonFiniteError(phase, self.name, said)
        if config.sampler_correction != "none":
            metrics |= self._correct(batch, config.sampler_correction, phase)
        # A few live sequences are no ground for many steps, nor for a large one.
        present = int((batch.mask.sum(axis=1) > 0).sum())
        full, count = self._steps(present), self._steps(len(live))
        share = min(1.0, losses.evidence(batch.mask, live, config.loss_mean) * full / count)
        sums: dict[str, list[float]] = {}
        for _ in range(config.epochs):
            parts = self._split(live, count, rng)
            if len(held) and (self.kl > 0.0 or states):
                beside = self._split(held, count, rng)
                parts = [np.concatenate(pair) for pair in zip(parts, beside, strict=True)]
            for part in parts:
                for key, value in self._minibatch(rows(batch, part), share, phase).items():
                    sums.setdefault(key, []).append(value)
        metrics["updates"] = float(len(sums["loss"]))
        metrics["step_share"] = share
        for key, values_ in sums.items():
            # Only before the first update are training and rollout the same weights.
            metrics[key] = values_[0] if key == "logprob_gap" else float(np.mean(values_))
        self.policy.forget()
        return metrics

    def _steps(self, sequences: int) -> int:
        """Into how many mini-batches so many live sequences are cut."""
        return max(1, min(self.config.minibatches, sequences // self.config.least_minibatch))

    def _split(
        self, index: NDArray[np.int64], count: int, rng: np.random.Generator
    ) -> list[NDArray[np.int64]]:
        return np.array_split(self.team.agree(rng.permutation(index)), count)

    def _minibatch(self, batch: TokenBatch, share: float, phase: str) -> dict[str, float]:
        config = self.config
        weights = losses.token_weights(batch.mask, config.loss_mean, config.loss_constant)
        # What is logged is a mean, also where the loss is none.
        total = float(weights.sum(dtype=np.float64)) or 1.0
        sums = {"loss": 0.0, "clipped": 0.0, "approx_kl": 0.0, "entropy": 0.0, "kl": 0.0}
        if self.critic is not None:
            sums["critic_loss"] = 0.0
        gap, trouble = 0.0, None
        for index, micro in self._pieces(batch, self.policy):
            logp, entropy, second = self._forward(micro, batch)
            weight = torch.as_tensor(passes.part(weights, index, micro), device=logp.device)
            old = torch.as_tensor(micro.old_logprobs, device=logp.device)
            advantages = micro.advantages * micro.extra.get("correction", np.float32(1.0))
            advantage = torch.as_tensor(advantages, device=logp.device)
            part = losses.clipped_policy_gradient(
                logp, old, advantage, weight, self.clip, self.clip_high
            )
            loss, whole = part.loss, part.loss
            if self.kl > 0.0:
                reference = torch.as_tensor(micro.extra["reference"], device=logp.device)
                penalty = losses.kl_penalty(logp, reference, weight)
                sums["kl"] += float(penalty.detach()) / total
                loss = whole = loss + self.kl * penalty
            if second is not None:
                sums["critic_loss"] += float(second.detach())
                whole = loss + second
            apart = float(((logp.detach() - old).abs() * (weight > 0)).max())
            # A sum is finite where both are.
            trouble = trouble or _trouble(float(whole.detach()) + apart, logp)
            gap = max(gap, apart)
            whole.backward()  # type: ignore[no-untyped-call]
            with torch.no_grad():
                sums["loss"] += float(loss)
                sums["clipped"] += float(part.clipped) / total
                sums["approx_kl"] += float(part.approx_kl) / total
                sums["entropy"] += float((weight * entropy).sum()) / total
        everywhere = self.team.gather((sums, gap, trouble))
        self._refuse(phase, [t for _, _, t in everywhere])
        shown = {key: sum(part[key] for part, _, _ in everywhere) for key in sums}
        gap = max(gap for _, gap, _ in everywhere)
        return {**shown, "logprob_gap": gap, "grad_norm": self._step(phase, share)}

    def _forward(
        self, micro: TokenBatch, whole: TokenBatch
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Log-probabilities, entropies and the critic's loss, where there is a critic."""
        if self.critic is None:
            return *self.policy.logprobs_and_entropy(micro), None
        seeing = cast(critics.ShowsStates, self.policy)
        logp, entropy, states = seeing.logprobs_and_states(micro, critics.written(micro))
        critic: Any = self.critic
        return logp, entropy, critic.loss(states, critics.tokens_of(micro, whole, logp.device))

    def values(self, segments: Sequence[Segment]) -> list[list[float]]:
        """What the critic says of the state before each turn of each segment.

        Raises:
            ValueError: The method has no critic.
        """
        if self.critic is None:
            raise ValueError("this method has no critic: give it one with Method(critic=...)")
        if not segments:
            return []
        critic: Any = self.critic
        seeing = cast(critics.ShowsStates, self.policy)
        batch = token_batch(segments, states=True)
        said = np.zeros(batch.mask.shape, dtype=np.float64)
        with torch.no_grad():
            for index in by_length(batch.lengths, self.config.micro_tokens):
                micro = rows(batch, index)
                first = micro.extra[critics.FIRST] > 0
                told = critic(seeing.states(micro, first)).reshape(-1)
                place = said[index]
                place[:, : first.shape[1]][first] = told.double().cpu().numpy()
                said[index] = place
        return [[float(said[place]) for place in places] for places in starts(segments)]

    def _pieces(self, batch: TokenBatch, policy: Any) -> Iterator[tuple[passes.Index, TokenBatch]]:
        return passes.pieces(batch, self.config.micro_tokens, self.team, policy)

    def _correct(self, batch: TokenBatch, form: mismatch.Form, phase: str) -> dict[str, float]:
        """Weighs a batch's tokens for who sampled them; the metrics.

        The model's own log-probabilities then stand for those of the rollout.
        """
        ours = self._logprobs_under(self.policy, batch)
        if not np.isfinite(ours).all():
            said = "a log-probability of what was sampled is not finite"
            raise NonFiniteError(phase, self.name, said)
        cap = self.config.sampler_cap
        found = mismatch.correct(ours, batch.old_logprobs, batch.mask, form, cap)
        batch.extra["correction"] = found.weights
        batch.old_logprobs = ours * batch.mask
        return found.metrics

    def _logprobs_under(self, policy: Learnable, batch: TokenBatch) -> Any:
        """Log-probabilities [batch, time] of a batch; each process computes its share."""
        found = np.zeros_like(batch.old_logprobs)
        with torch.no_grad():
            for index, micro in self._pieces(batch, policy):
                logp, _ = policy.logprobs_and_entropy(micro)
                found[index, : logp.shape[1]] = logp[: len(index)].cpu().numpy()
        return self.team.add_array(found)

    # -- a step ----------------------------------------------------------------------------------

    def _step(self, phase: str, share: float = 1.0) -> float:
        """One step of `share` (of a critic a whole one); the norm of the policy's gradient.

        A norm that is finite means that every gradient's square is, and a step from finite weights
        and moments by finite gradients ends at finite ones: all is checked before anything moves.
        """
        groups = [(list(self.policy.parameters()), share), (self._critic_parameters(), 1.0)]
        groups = [group for group in groups if group[0]]
        norms = []
        for parameters, _ in groups:
            # What is sharded over the processes was added up where it was computed.
            self.team.add_gradients([p for p in parameters if not is_sharded(p)])
            gradients = [p.grad for p in parameters if p.grad is not None]
            norms.append(finite.norm(gradients) if gradients else 0.0)
        weights = [p for parameters, _ in groups for p in parameters]
        kept = finite.norm([*weights, *optimiser.moments(self.optimizer)])
        if not math.isfinite(sum(norms) + kept):
            self._refuse(phase, [self._blamed(groups)])
        for (parameters, _), norm in zip(groups, norms, strict=True):
            most = self.config.max_grad_norm or math.inf
            finite.clip(parameters, most, norm)
        optimiser.step(self.optimizer, [share for _, share in groups])
        self.updates += 1
        return norms[0]

    def _blamed(self, groups: Sequence[tuple[list[torch.nn.Parameter], float]]) -> str:
        """Which weight, gradient or moment is not finite."""
        modules: tuple[Any, ...] = (self.policy, self.critic)
        for (parameters, _), module in zip(groups, modules, strict=False):
            names = finite.named(getattr(module, "model", module), parameters)
            found: dict[str, list[Any]] = {
                "weight": parameters,
                "gradient": [p.grad for p in parameters],
            }
            for key in optimiser.MOMENTS:
                states = self.optimizer.state
                found[f"optimiser's {key}"] = [states.get(p, {}).get(key) for p in parameters]
            for what, tensors in found.items():
                present = [(n, t) for n, t in zip(names, tensors, strict=True) if t is not None]
                if (name := self._broken(present)) is not None:
                    return f"the {what} of {name} is not finite"
        return "the norm of the gradient is not finite"

    def _broken(self, tensors: Sequence[tuple[str, Any]]) -> str | None:
        """The name of a tensor with a number that is not finite, in whatever process it lies."""
        own = finite.broken((name, local(tensor)) for name, tensor in tensors)
        return next((name for name in self.team.gather(own) if name is not None), None)

    def _refuse(self, phase: str, troubles: Sequence[str | None]) -> None:
        """Ends this step, in every process, if one is in trouble; no gradient is left behind.

        Args:
            phase: What is learned.
            troubles: What is wrong, process by process.

        Raises:
            NonFiniteError: It is.
        """
        found = next((t for t in troubles if t is not None), None)
        if found is None:
            return
        self.optimizer.zero_grad(set_to_none=True)
        weights = list(self.policy.parameters())
        names = finite.named(getattr(self.policy, "model", None), weights)
        if (name := self._broken(list(zip(names, weights, strict=True)))) is not None:
            found = f"the weight of {name} is not finite"
        raise NonFiniteError(phase, self.name, found)


def _trouble(loss: float, logp: Tensor) -> str | None:
    """What is not finite in a forward pass."""
    if math.isfinite(loss):
        return None
    wrong = not bool(torch.isfinite(logp.detach()).all())
    return "a log-probability is not finite" if wrong else "the loss is not finite"


def cosine(step: int, steps: int, peak: float, floor: float = 0.1, warmup: int = 50) -> float:
    """Learning rate: a linear rise over `warmup` steps, then a cosine down to `floor` * peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    along = min(1.0, (step - warmup) / max(1, steps - warmup))
    return peak * (floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * along)))
