"""Questions: how an agent's coroutine asks a policy, and who answers.

An agent's decision is a coroutine that awaits `Question`s. Whoever drives it decides when they are
answered: `finish` answers each at once (one environment, one decision), and
`himac_agents.rollouts.collect` gathers those of many episodes, so that a local model answers them
in one batch. Policies that answer one at a time (`Policy.sample`) do so in an event loop of their
own, in a thread, so that they may be used from anywhere, notebooks included.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Generator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

from himac_agents.policies.base import BatchPolicy, Completion, Policy, Prompt, Sampling

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Question:
    """What a policy is asked; awaited, it gives the completion.

    Attributes:
        policy: Who is asked.
        prompt: What.
        sampling: How the answer is drawn.
    """

    policy: Policy | BatchPolicy
    prompt: Prompt
    sampling: Sampling

    def __await__(self) -> Generator[Question, Completion, Completion]:
        completion = yield self
        return completion

    @property
    def batched(self) -> bool:
        """Whether the policy answers many at once."""
        return hasattr(self.policy, "generate")


#: A coroutine that asks questions and ends with a value.
Asking = Coroutine[Question, Completion, T]


def finish(coroutine: Asking[T]) -> T:
    """Drives a coroutine to its end, each of its questions answered at once."""
    question = None
    try:
        question = coroutine.send(None)  # type: ignore[arg-type]
        while True:
            question = coroutine.send(answer(question))
    except StopIteration as ended:
        value: T = ended.value
        return value
    finally:
        coroutine.close()


def answer(question: Question) -> Completion:
    """The answer to one question, waited for."""
    if isinstance(question.policy, BatchPolicy):
        (completion,) = question.policy.generate([question.prompt], question.sampling)
        return completion
    return submit(question).result()


def submit(question: Question) -> Future[Completion]:
    """Lets a policy answer in the event loop of this process; the answer to come."""
    assert isinstance(question.policy, Policy)
    sample = question.policy.sample(question.prompt, question.sampling)
    return asyncio.run_coroutine_threadsafe(sample, _loop())


_LOCK = threading.Lock()
_LOOPS: dict[int, asyncio.AbstractEventLoop] = {}


def _loop() -> asyncio.AbstractEventLoop:
    """The event loop in which policies answer: one a process, in a thread that never ends."""
    import os

    with _LOCK:
        # A forked process inherits the record of a loop, and no thread that runs it.
        loop = _LOOPS.get(os.getpid())
        if loop is None:
            loop = _LOOPS[os.getpid()] = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="himac policies", daemon=True).start()
        return loop
