"""The parts of `himac bench gpu`: each measures one thing on one device, and returns its rows."""

from __future__ import annotations

import importlib.util
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from himac_agents.agents.agent import HiMACAgent, at_temperature
from himac_agents.algorithms.batching import token_batch
from himac_agents.algorithms.learner import Learner
from himac_agents.config import TrainConfig
from himac_agents.experiments.bench import shaped
from himac_agents.policies.base import Completion, Message, Prompt, Sampling, TokenBatch
from himac_agents.policies.chat import ChatPolicy
from himac_agents.policies.hf import HFPolicy
from himac_agents.prompts import CompactPrompts
from himac_agents.rollouts.collect import collect
from himac_agents.rollouts.pool import EnvPool
from himac_agents.rollouts.types import EpisodeRequest, Segment, Turn

#: Tasks that the lanes play, at most.
_TASKS = 16
#: A sequence that is learned from: what opens it, and each turn's read and written tokens.
_OPENING, _READ, _WRITTEN = 256, 40, 8
#: The widest gaps of log-probabilities, in nats: in float32 of any token, else in the mean.
EXACT, ROUNDED = 1e-3, 0.15


class NotHere(Exception):
    """A part that cannot be run here; the message says why."""


@dataclass(frozen=True, slots=True)
class Setup:
    """With what is measured.

    Attributes:
        device: Where the model is.
        small: A model of two layers, few lanes, few tokens.
        model: A name or folder; "": random weights.
        dtype: What is computed in.
        lanes: Episodes at a time.
        steps: Environment steps of an episode.
    """

    device: str = "cuda"
    small: bool = False
    model: str = ""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    lanes: int = 128
    steps: int = 10

    @property
    def places(self) -> int:
        """Episodes that are played at a time."""
        return min(self.lanes, 4) if self.small else self.lanes

    @property
    def told(self) -> str:
        """The same in words."""
        shape = "two layers" if self.small else "SmolLM2-135M's shape"
        what = self.model or f"random weights of {shape}"
        return f"{what}, {self.places} lanes of {self.steps} steps, on {self.device}"

    @contextmanager
    def source(self) -> Iterator[str]:
        """The model's name or folder, for as long as it is used."""
        if self.model:
            yield self.model
            return
        with tempfile.TemporaryDirectory(prefix="himac-bench-") as folder:
            shape = shaped.SMALL if self.small else shaped.SMOLLM2
            yield str(shaped.build(Path(folder) / "model", shape, _texts()))

    def load(self, source: str, dtype: str | None = None, device: str | None = None) -> ChatPolicy:
        """The model as a policy."""
        precision: Any = dtype or self.dtype
        return HFPolicy.load(source, device=device or self.device, dtype=precision)


@dataclass(frozen=True, slots=True)
class Row:
    """A figure.

    Attributes:
        part: The part that found it.
        what: What it is.
        figure: The number.
        unit: What it counts.
        most: What it must not exceed, where it is a check.
    """

    part: str
    what: str
    figure: float
    unit: str = ""
    most: float | None = None

    @property
    def passed(self) -> bool | None:
        """Whether a check holds; None where it is none."""
        return None if self.most is None else bool(self.figure <= self.most)

    @property
    def verdict(self) -> str:
        """The same in words."""
        if self.passed is None:
            return ""
        return f"{'holds' if self.passed else 'FAILS'}: at most {self.most:g}"


# -- checks ----------------------------------------------------------------------------------------


def checks(setup: Setup) -> list[Row]:
    """On the device everything is what it is on a CPU, and rollouts are what is learned from."""
    rows: list[Row] = []

    def found(what: str, figure: float, unit: str, most: float | None) -> None:
        rows.append(Row("checks", what, float(figure), unit, most))

    count = 4 if setup.small else 24
    with setup.source() as source:
        exact, cpu = setup.load(source, "float32"), setup.load(source, "float32", "cpu")
        talks = _talks(exact, range(count))
        batch = _batch(exact, talks)
        here, there = _logprobs(exact, batch), _logprobs(cpu, batch)
        written = batch.mask > 0
        gap = np.abs(here - batch.old_logprobs)[written].max()
        found("rollout against learning, float32, any token", gap, "nats", EXACT)
        gap = np.abs(here - there)[written].max()
        found("learning against the CPU's, float32, any token", gap, "nats", EXACT)
        said = [[c.token_ids for c in talk.answers] for talk in talks]
        again = _talks(exact, range(count))
        other = sum(a != [c.token_ids for c in b.answers] for a, b in zip(said, again, strict=True))
        found("conversations that differ when asked again", other, f"of {count}", 0)
        alone = [_talks(exact, [number])[0] for number in range(count)]
        other = sum(a != [c.token_ids for c in b.answers] for a, b in zip(said, alone, strict=True))
        # Sums depend on the batch, and on a GPU nobody promises more.
        most = 0.0 if exact.device.type == "cpu" else None
        found("conversations that differ when asked alone", other, f"of {count}", most)
        unconstrained = sum(
            ids not in talk.choices for talk, all_ in zip(talks, said, strict=True) for ids in all_
        )
        found("answers that are no choice", unconstrained, f"of {sum(map(len, said))}", 0)
        norms = [_gradient(policy, batch) for policy in (exact, cpu)]
        found("gradient's norm against the CPU's", abs(norms[0] / norms[1] - 1), "of it", 0.01)
        del exact, cpu
        rounded = setup.load(source)
        computes = str(rounded.loading.precision(rounded.device)).removeprefix("torch.")
        batch = _batch(rounded, _talks(rounded, range(count)))
        apart = np.abs(_logprobs(rounded, batch) - batch.old_logprobs)[batch.mask > 0]
        found(f"rollout against learning, {computes}, mean", apart.mean(), "nats", ROUNDED)
    return rows


@dataclass(slots=True)
class _Talk:
    """A conversation of a few turns whose answers are constrained."""

    ids: list[int]
    starts: list[int]
    answers: list[Completion]
    choices: list[tuple[int, ...]]


def _talks(policy: ChatPolicy, numbers: Sequence[int]) -> list[_Talk]:
    """Conversations that depend on their numbers alone, held at the same time."""
    policy.forget()
    choices = [policy.encode_reply(command) for command in _COMMANDS]
    talks = []
    for number in numbers:
        opening = " ".join([f"There is a room with {number} drawers."] * (1 + number % 5))
        talks.append(_Talk(policy.encode([Message("user", opening)]), [], [], choices))
    for turn in range(3):
        prompts = [
            Prompt((), tuple(talk.ids), slot, choices=choices, noise=1000 * number + turn)
            for slot, (number, talk) in enumerate(zip(numbers, talks, strict=True))
        ]
        for talk, answer in zip(talks, policy.generate(prompts, Sampling(1.0, 16)), strict=True):
            talk.starts.append(len(talk.ids))
            talk.ids.extend(answer.token_ids)
            talk.ids.extend(policy.encode([Message("user", "It is open.")], continues=True))
            talk.answers.append(answer)
    policy.forget()
    return talks


#: What the answers of the checks are constrained to.
_COMMANDS = (
    "go to drawer 1",
    "go to drawer 12",
    "open drawer 1",
    "look",
    "take mug 1 from shelf 2",
)


def _batch(policy: ChatPolicy, talks: Sequence[_Talk]) -> TokenBatch:
    """The conversations as they are learned from."""
    segments = []
    for number, talk in enumerate(talks):
        segment = Segment("executor", number, token_ids=talk.ids)
        for start, answer in zip(talk.starts, talk.answers, strict=True):
            turn = Turn(
                "executor", start, answer.token_ids, answer.logprobs, "", "",
                allowed=answer.allowed, advantage=1.0 if number % 2 else -1.0,
            )  # fmt: skip
            segment.turns.append(turn)
        segments.append(segment)
    return token_batch(segments, pad=policy.pad_id)


def _logprobs(policy: ChatPolicy, batch: TokenBatch) -> NDArray[np.float32]:
    with torch.no_grad():
        found: NDArray[np.float32] = policy.logprobs(batch).float().cpu().numpy()
    return found


def _gradient(policy: ChatPolicy, batch: TokenBatch) -> float:
    """The norm of the gradient of the batch's weighed log-probabilities."""
    weights = torch.as_tensor(batch.advantages, device=policy.device)
    (policy.logprobs(batch) * weights).sum().backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad for p in policy.parameters() if p.grad is not None]
    norm = float(torch.stack([g.double().norm().cpu() for g in gradients]).norm())
    for parameter in policy.parameters():
        parameter.grad = None
    return norm


# -- rollouts --------------------------------------------------------------------------------------


def local(setup: Setup) -> list[Row]:
    """Environment steps a second, sampled by the model that learns."""
    with setup.source() as source:
        policy = setup.load(source)
        return _played("local", setup, policy, policy)


def _played(part: str, setup: Setup, policy: Any, learner: ChatPolicy) -> list[Row]:
    """Plays with answers constrained and free, after a shorter pass each that is not counted."""
    prompts = CompactPrompts(gather=True)
    pool = EnvPool(lambda: _make(setup.steps), setup.places)
    tasks = pool.task_ids("train")[: min(_TASKS, setup.places)]
    plans = {}
    for task in tasks:
        pool[0].reset(options={"task_id": task})
        plans[task] = pool[0].unwrapped.oracle_blueprint()  # type: ignore[attr-defined]
    asked = [
        EpisodeRequest(
            tasks[n % len(tasks)], n % len(tasks), n // len(tasks), plans[tasks[n % len(tasks)]]
        )
        for n in range(setup.places)
    ]
    rows = []
    for constrained in (True, False):
        agent = at_temperature(HiMACAgent.shared(policy, prompts), 1.0)
        agent.executor.constrained = constrained
        agent.executor.sampling = Sampling(1.0, 12)
        collect(agent, pool, asked[: max(1, len(tasks) // 4)])
        _fresh(learner.device)
        began = time.perf_counter()
        episodes = collect(agent, pool, asked)
        spent = time.perf_counter() - began
        for episode in episodes:
            if episode.error is not None:
                raise RuntimeError(f"an episode failed: {episode.error}")
        steps, tokens = (sum(getattr(e, name) for e in episodes) for name in ("steps", "tokens"))
        how = "constrained answers" if constrained else "free answers of at most 12 tokens"
        rows.append(Row(part, f"rollouts, {how}", steps / spent, "steps/s"))
        rows.append(Row(part, f"rollouts, {how}", tokens / spent, "written tokens/s"))
    rows.append(Row(part, "rollouts, memory at the peak", _peak(learner.device), "GiB"))
    return rows


def _make(steps: int) -> gym.Env[Any, Any]:
    return gym.make(
        "HiMAC-ALFWorld-v0", data="generated", max_steps=steps, disable_env_checker=True
    )


def _texts() -> list[str]:
    """What the environment says and is told, for a tokenizer."""
    env = _make(50)
    found: list[str] = []
    for task in env.unwrapped.task_ids("train")[:8]:  # type: ignore[attr-defined]
        observation, info = env.reset(options={"task_id": task})
        found += [observation["text"], info["goal"]]
        observation, *_, info = env.step(env.unwrapped.oracle_blueprint().action())  # type: ignore[attr-defined]
        found += info["admissible"]
    return found


# -- updates ---------------------------------------------------------------------------------------


def update(setup: Setup) -> list[Row]:
    """Tokens a second that are learned from, and the memory at the peak."""
    turns, count = (2, 4) if setup.small else (16, 128)
    with setup.source() as source:
        policy = setup.load(source)
        config = TrainConfig(
            method="grpo", policy="hf", minibatches=1, epochs=1, kl=0.0, lr=1e-6, micro_tokens=16384
        )
        learner = Learner(policy, config)
        learner.begin_reinforcement()
        segments = [_segment(policy, number, turns) for number in range(count)]
        tokens = sum(len(segment.token_ids) for segment in segments)
        rng = np.random.default_rng(0)
        learner.reinforce(segments[: max(2, count // 8)], rng)
        _fresh(policy.device)
        began = time.perf_counter()
        learner.reinforce(segments, rng)
        _wait(policy.device)
        spent = time.perf_counter() - began
        computes = str(policy.loading.precision(policy.device)).removeprefix("torch.")
        what = f"an update by {tokens:,} tokens, {computes}"
        return [
            Row("update", what, tokens / spent, "tokens/s"),
            Row("update", f"{what}: memory at the peak", _peak(policy.device), "GiB"),
        ]


def _segment(policy: ChatPolicy, number: int, turns: int) -> Segment:
    """A conversation of the usual lengths, of words at random."""
    rng = np.random.default_rng(number)
    known = np.asarray(sorted(set(policy.tokenizer.get_vocab().values())))
    length = _OPENING + turns * (_READ + _WRITTEN)
    segment = Segment("executor", number, token_ids=rng.choice(known, length).tolist())
    for turn in range(turns):
        start = _OPENING + turn * (_READ + _WRITTEN) + _READ
        ids = tuple(segment.token_ids[start : start + _WRITTEN])
        told = (-float(np.log(len(known))),) * _WRITTEN
        made = Turn("executor", start, ids, told, "", "", advantage=1.0 if number % 2 else -1.0)
        segment.turns.append(made)
    return segment


# -- vLLM ------------------------------------------------------------------------------------------


def served(setup: Setup) -> list[Row]:
    """The same steps sampled by vLLM in this process, and what a sync costs and finds.

    Raises:
        NotHere: vLLM is not installed here.
    """
    if importlib.util.find_spec("vllm") is None:
        raise NotHere("vLLM is not installed here (pip install vllm, beside this package)")
    from himac_agents.policies.served.rollouts import make_rollouts

    with setup.source() as source:
        learner = setup.load(source)
        config = TrainConfig(
            policy="hf", model=source, dtype=setup.dtype, rollout="vllm", lanes=setup.places
        )
        rollouts = make_rollouts(config, {"policy": learner})
        policy = rollouts.serve({"policy": learner})["policy"]
        policy.forget()
        rollouts.take()
        rows = _played("vllm", setup, policy, learner)
        rollouts.take()
        with torch.no_grad():
            for parameter in learner.parameters():
                parameter.mul_(1.01)
        learner.forget()
        found = rollouts.take()
        exact = learner.loading.precision(learner.device) == torch.float32
        most = EXACT if exact else ROUNDED
        rows.append(Row("vllm", "a sync, its check included", found["sync_seconds"], "s"))
        rows.append(Row("vllm", "gap after it, in the mean", found["sync_gap"], "nats", most))
        rows.append(Row("vllm", "gap after it, any token", found["sync_gap_max"], "nats"))
        return rows


# -- the device ------------------------------------------------------------------------------------


def _wait(device: torch.device) -> None:
    """Lets the device end what it was told to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _fresh(device: torch.device) -> None:
    """Begins to look at the memory anew."""
    _wait(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: torch.device) -> float:
    """The most memory that was in use since, in GiB: of the GPU, or of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
