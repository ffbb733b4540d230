"""A policy that learns here and is sampled elsewhere: requests out of prompts, completions back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from himac_agents.policies.base import Completion, Prompt, Sampling, narrow
from himac_agents.policies.chat import ChatPolicy
from himac_agents.policies.codec import Relayed
from himac_agents.policies.served.server import RolloutError


class Rollouts(Protocol):
    """Who samples; `himac_agents.policies.served.rollouts`."""

    context: int

    def name_of(self, policy: str) -> str:
        """What a policy is called in requests."""
        ...

    def refresh(self) -> None:
        """Makes sure that what samples has the weights that learn."""
        ...

    async def ask(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """One answer."""
        ...

    def answer(self, bodies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Many answers, in order."""
        ...


class ServedPolicy(Relayed):
    """The codec of a local model, and requests that give what it would write.

    Args:
        learner: The model that learns.
        name: Its name in the run ("policy", "planner", "executor").
        rollouts: Who samples.
    """

    def __init__(self, learner: ChatPolicy, name: str, rollouts: Rollouts) -> None:
        super().__init__(learner)
        self.learner, self.name, self.rollouts = learner, name, rollouts
        barred = [] if learner.barred is None else learner.barred.tolist()
        self._barred = {"himac_barred": barred} if barred else {}

    def forget(self) -> None:
        """The weights may have changed, here or there: they are compared, and sent if need be."""
        self.rollouts.refresh()

    def request(self, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
        """A request for an answer, with the noise that belongs to it.

        An answer that is constrained to choices may be as long as they are; `read` cuts it where a
        local model would have stopped.

        Raises:
            ValueError: The prompt has no token ids.
        """
        if not prompt.token_ids:
            raise ValueError("a served model needs Prompt.token_ids; make them with policy.encode")
        most, further = sampling.max_tokens, dict[str, Any](self._barred)
        if prompt.choices is not None:
            most = max(most, max(map(len, prompt.choices)))
            further["himac_choices"] = json.dumps(prompt.choices, separators=(",", ":"))
        return {
            "model": self.rollouts.name_of(self.name),
            "prompt": list(prompt.token_ids),
            "max_tokens": most,
            "temperature": sampling.temperature,
            "seed": prompt.noise >> 1,  # of 64 bits, 63 make a seed
            "logprobs": 0,
            "return_token_ids": True,
            # What ends an answer is the policy's to say, not the tokenizer's.
            "ignore_eos": True,
            "stop_token_ids": list(self.learner.end_ids),
            "skip_special_tokens": False,
            **({"vllm_xargs": further} if further else {}),
        }

    def read(self, choice: Mapping[str, Any], prompt: Prompt, sampling: Sampling) -> Completion:
        """What a server answered.

        Raises:
            RolloutError: It gives no ids or log-probabilities, or is none of the choices.
        """
        try:
            ids = tuple(int(i) for i in choice["token_ids"])
            logps = tuple(float(p) for p in choice["logprobs"]["token_logprobs"])
        except (KeyError, TypeError, ValueError) as error:
            raise RolloutError(
                f"an answer without token ids or log-probabilities ({error!r}): "
                "`himac serve MODEL` starts a server that gives both"
            ) from error
        if not ids or len(ids) != len(logps):
            raise RolloutError(f"an answer of {len(ids)} ids and {len(logps)} log-probabilities")
        allowed: tuple[tuple[int, ...], ...] = ()
        if prompt.choices is not None:
            found = narrow(prompt.choices, ids)
            if found is None:
                raise RolloutError(
                    f"the server answered {self.decode(ids)!r}, which is none of the "
                    f"{len(prompt.choices)} choices: its logits processor does not constrain "
                    "answers"
                )
            end = _cut(found, sampling.max_tokens)
            ids, logps, allowed = ids[:end], logps[:end], found[:end]
        cut = ids[-1] not in self.learner.end_ids
        return Completion(self.decode(ids), ids, logps, allowed, cut=cut)

    def _too_long(self, prompt: Prompt, sampling: Sampling) -> Completion | None:
        """An error in place of an answer that would exceed what the model reads, here or there."""
        longest = max(map(len, prompt.choices)) if prompt.choices else 0
        told = self.learner.too_long(prompt, sampling.max_tokens)
        whole = len(prompt.token_ids) + max(sampling.max_tokens, longest)
        if told is None and whole > self.rollouts.context:
            told = (
                f"context length: a conversation of {whole:,} tokens, its answer included, exceeds "
                f"the {self.rollouts.context:,} that the server reads (himac serve "
                "--max-model-len). Let it remember fewer steps, or shorten its answers"
            )
        return None if told is None else Completion("", error=told)


class ServerPolicy(ServedPolicy):
    """Sampled by servers, each answer by itself: see `Policy`."""

    async def sample(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """See `Policy.sample`.

        Raises:
            RolloutError: No server answers as it should.
        """
        if (refused := self._too_long(prompt, sampling)) is not None:
            return refused
        choice = await self.rollouts.ask(self.request(prompt, sampling))
        return self.read(choice, prompt, sampling)


class EnginePolicy(ServedPolicy):
    """Sampled by vLLM in this process, many answers at once: see `BatchPolicy`."""

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """See `BatchPolicy.generate`."""
        refused = [self._too_long(prompt, sampling) for prompt in prompts]
        asked = [p for p, no in zip(prompts, refused, strict=True) if no is None]
        said = iter(self.rollouts.answer([self.request(p, sampling) for p in asked]))
        return [
            self.read(next(said), prompt, sampling) if no is None else no
            for prompt, no in zip(prompts, refused, strict=True)
        ]


def _cut(allowed: Sequence[tuple[int, ...]], most: int) -> int:
    """Where a local model ends a constrained answer: what leaves no choice may go beyond `most`."""
    for place in range(most, len(allowed)):
        if len(allowed[place]) > 1:
            return place
    return len(allowed)
