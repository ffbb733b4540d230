"""What every local causal language model does: batched generation with a cache, log-probabilities.

`tiny` and `hf` differ only in how a conversation becomes tokens and where the weights come from.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from himac_agents.policies.cache import SlotCache
from himac_agents.policies.reader import Reader
from himac_agents.policy import Completion, Message, Prompt, Sampling, TokenBatch

#: What a forward pass costs beside its tokens, in tokens (a small model on one CPU core).
_PASS = 160


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Keeps transformers from drawing bars over ours while it loads or saves; then as before."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


class CausalPolicy(ABC):
    """A local causal language model as a trainable policy.

    Args:
        model: A transformers causal language model.
        tokenizer: Its tokenizer (fast).
        end_ids: Ids that end an assistant's turn; the first is the one appended to demonstrations.
        seed: Seed of the policy's own random generator.
    """

    def __init__(self, model: Any, tokenizer: Any, end_ids: Sequence[int], seed: int = 0) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.end_ids = tuple(end_ids)
        self.cache = SlotCache()
        self.device = next(model.parameters()).device
        self.generator = torch.Generator(device=self.device).manual_seed(seed)
        #: Ids that are never written: those that stand for something other than text.
        self.barred: Tensor | None = None
        #: A quicker forward pass for rollouts, where one fits the model.
        self.reader: Reader | None = None
        self.pad_id = self.end_ids[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id

    # -- text and tokens -------------------------------------------------------------------------

    @abstractmethod
    def encode(self, messages: Sequence[Message], *, continues: bool = False) -> list[int]:
        """See `Codec.encode`."""

    def encode_reply(self, text: str) -> tuple[int, ...]:
        """See `Codec.encode_reply`."""
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        return (*ids, self.end_ids[0])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a completion, without its end token."""
        kept = list(ids[:-1]) if ids and ids[-1] in self.end_ids else list(ids)
        return str(self.tokenizer.decode(kept, skip_special_tokens=False)).strip()

    # -- generation ------------------------------------------------------------------------------

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """Answers all prompts in one batch; see `Policy.generate`.

        Prompts with a slot keep their keys and values for the next call; a batch mixes lengths
        freely. Prompts without a slot are answered with a cache that is thrown away.
        """
        if not prompts:
            return []
        if any(not prompt.token_ids for prompt in prompts):
            raise ValueError("a local model needs Prompt.token_ids; make them with policy.encode")
        if all(prompt.slot is not None for prompt in prompts):
            cache, slots = self.cache, [int(prompt.slot or 0) for prompt in prompts]
            if len(set(slots)) != len(slots):
                raise ValueError("two prompts of one batch share a slot")
        else:
            cache, slots = SlotCache(), list(range(len(prompts)))
        with self._ready(learning=False):
            return _Decoding(self, cache, slots, prompts, sampling).run()

    def forget(self) -> None:
        """Drops the cache: the weights have changed."""
        self.cache.clear()
        if self.reader is not None:
            self.reader.forget()

    @contextmanager
    def _ready(self, *, learning: bool) -> Iterator[None]:
        """Around every use of the model; subclasses switch adapters and precision here."""
        self.model.eval()
        yield

    def prefix_keys(self, prompt: Prompt) -> list[int]:
        """What a prompt is compared by when its beginning is looked for in the cache."""
        return list(prompt.token_ids)

    def reading_inputs(
        self,
        fed: NDArray[np.int64],
        positions: NDArray[np.int64],
        prompts: Sequence[Prompt] | None,
        shifts: NDArray[np.int64],
    ) -> dict[str, Any]:
        """The model's arguments for one cached forward pass.

        Args:
            fed: [batch, time] ids.
            positions: [batch, time] their places in their conversations.
            prompts: The prompt that each row is a part of; None while answers are written.
            shifts: [batch] what `prefix_shift` said of each row's prompt.
        """
        return {
            "input_ids": torch.as_tensor(fed, device=self.device),
            "position_ids": torch.as_tensor(positions, device=self.device),
        }

    def prefix_shift(self, prompt: Prompt) -> int:
        """How far a written token's rotary position is from its place in the conversation."""
        return 0

    # -- learning --------------------------------------------------------------------------------

    def logprobs(self, batch: TokenBatch) -> Tensor:
        """See `TrainablePolicy.logprobs`."""
        return self.logprobs_and_entropy(batch)[0]

    def logprobs_and_entropy(self, batch: TokenBatch) -> tuple[Tensor, Tensor]:
        """Log-probability and (detached) entropy in nats of each token of the mask, [batch, time].

        Only the positions under the mask go through the output layer.
        """
        ids = torch.as_tensor(batch.token_ids, device=self.device)
        mask = torch.as_tensor(batch.mask, device=self.device) > 0
        with self._ready(learning=True):
            logits = self._logits_before(ids, mask, batch).float() / batch.temperature
        if self.barred is not None:
            logits = logits.index_fill(-1, self.barred, -math.inf)
        restricted = _restrictions(batch)
        if restricted:
            logits = forbid(logits, restricted)
        logp_all = torch.log_softmax(logits, dim=-1)
        chosen = logp_all.gather(-1, ids[mask][:, None])[:, 0]
        with torch.no_grad():
            entropies = torch.special.entr(logp_all.exp()).sum(-1)
        logp = torch.zeros(ids.shape, dtype=chosen.dtype, device=self.device)
        entropy = torch.zeros_like(logp)
        return logp.masked_scatter(mask, chosen), entropy.masked_scatter(mask, entropies)

    def _logits_before(self, ids: Tensor, mask: Tensor, batch: TokenBatch) -> Tensor:
        """Logits [n, vocabulary] that predict the n tokens under `mask`, in row order.

        A hook before the output layer lets only these positions through, whatever the model does
        with its logits afterwards (scaling, soft caps): with a vocabulary of 150,000, the logits of
        a whole batch would be most of its memory.
        """

        def keep(module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (inputs[0][:, :-1][mask[:, 1:]][None], *inputs[1:])

        hook = self.model.get_output_embeddings().register_forward_pre_hook(keep)
        try:
            logits: Tensor = self.model(**self.learning_inputs(ids, batch), use_cache=False).logits
        finally:
            hook.remove()
        return logits[0]

    def learning_inputs(self, ids: Tensor, batch: TokenBatch) -> dict[str, Any]:
        """The model's arguments for a whole batch; rows are padded on the right."""
        return {"input_ids": ids}

    def parameters(self) -> list[torch.nn.Parameter]:
        """The parameters that learn."""
        return [p for p in self.model.parameters() if p.requires_grad]

    def save_pretrained(self, path: str | Path) -> None:
        """Writes weights (safetensors), configuration and tokenizer into the folder `path`."""
        with without_progress_bars():
            self.model.save_pretrained(path)
        self.tokenizer.save_pretrained(path)


def _restrictions(batch: TokenBatch) -> list[tuple[int, tuple[int, ...]]]:
    """For the tokens under the mask, in row order: (which one, the ids it was drawn from)."""
    if not batch.allowed:
        return []
    number = np.cumsum(batch.mask.ravel() > 0).reshape(batch.mask.shape) - 1
    return [
        (int(number[row, position]), ids)
        for row, pairs in enumerate(batch.allowed)
        for position, ids in pairs
        if batch.mask[row, position] > 0
    ]


class _Answer:
    """One answer while it is written: what is there, what is still to be fed, what may follow."""

    __slots__ = ("allowed", "left", "logps", "pending", "tokens")

    def __init__(self, choices: Sequence[tuple[int, ...]] | None) -> None:
        self.tokens: list[int] = []
        self.logps: list[float] = []
        self.pending: list[int] = []
        self.left = None if choices is None else list(choices)
        self.allowed: list[tuple[int, ...]] = []

    def options(self) -> tuple[int, ...]:
        """The ids that may come next (only asked when choices restrict them)."""
        place = len(self.tokens)
        return tuple(sorted({c[place] for c in self.left or () if len(c) > place}))

    def write(self, token: int, logp: float) -> None:
        """Appends a token."""
        if self.left is not None:
            self.allowed.append(self.options())
            place = len(self.tokens)
            self.left = [c for c in self.left if len(c) > place and c[place] == token]
        self.tokens.append(token)
        self.logps.append(logp)
        self.pending.append(token)

    def write_forced(self) -> None:
        """Appends what has no alternative: no forward pass is needed to know it."""
        while self.left is not None and len(options := self.options()) == 1:
            self.write(options[0], 0.0)


class _Decoding:
    """One call of `generate`: feed what the cache lacks, then write token by token."""

    def __init__(
        self,
        policy: CausalPolicy,
        cache: SlotCache,
        slots: Sequence[int],
        prompts: Sequence[Prompt],
        sampling: Sampling,
    ) -> None:
        self.policy, self.cache, self.sampling = policy, cache, sampling
        self.slots = slots
        self.rows = cache.seat(slots)
        self.asked = prompts
        self.prompts = [list(prompt.token_ids) for prompt in prompts]
        self.keys = [policy.prefix_keys(prompt) for prompt in prompts]
        self.shifts = np.zeros(cache.rows, dtype=np.int64)
        for row, prompt in zip(self.rows, prompts, strict=True):
            self.shifts[row] = policy.prefix_shift(prompt)
        self.answers = [_Answer(prompt.choices) for prompt in prompts]
        # Every row of the cache takes part in a decoding step (no copy of keys and values);
        # rows that are not asked, or have finished, compute something nobody reads.
        self.lengths = np.zeros(cache.rows, dtype=np.int64)
        for slot, row in cache.row_of.items():
            self.lengths[row] = len(cache.tokens[slot])
        cache.reserve(max(len(ids) for ids in self.prompts) + sampling.max_tokens)
        if policy.reader is not None:
            policy.reader.refresh()

    def run(self) -> list[Completion]:
        """Decodes until every prompt has its end token or the most tokens allowed."""
        policy, most = self.policy, self.sampling.max_tokens
        last = self._prefill()
        alive = list(range(len(self.prompts)))
        fed = [list(keys) for keys in self.keys]
        while True:
            ids, logps = self._draw(last, alive)
            for i, token, logp in zip(alive, ids, logps, strict=True):
                self.answers[i].write(int(token), float(logp))
                self.answers[i].write_forced()
            alive = [
                i
                for i in alive
                if (a := self.answers[i]).tokens[-1] not in policy.end_ids and len(a.tokens) < most
            ]
            if not alive:
                break
            last = self._feed(alive, fed)
        completions = []
        for slot, answer, held in zip(self.slots, self.answers, fed, strict=True):
            self.cache.tokens[slot] = held
            text = policy.decode(answer.tokens)
            completions.append(
                Completion(text, tuple(answer.tokens), tuple(answer.logps), tuple(answer.allowed))
            )
        return completions

    def _feed(self, alive: list[int], fed: list[list[int]]) -> Tensor:
        """Feeds what was written since the last pass; logits [alive, vocabulary] after it."""
        longest = max(len(self.answers[i].pending) for i in alive)
        # While most rows write, the whole cache takes part and nothing is copied; then only those
        # rows are picked that still do.
        whole = len(alive) * 4 > self.cache.rows * 3
        rows = range(self.cache.rows) if whole else [self.rows[i] for i in alive]
        place = [self.rows[i] for i in alive] if whole else range(len(alive))
        tokens = np.full((len(rows), longest), self.policy.pad_id, dtype=np.int64)
        ends = np.zeros(len(rows), dtype=np.int64)
        for at, i in zip(place, alive, strict=True):
            pending = self.answers[i].pending
            tokens[at, : len(pending)] = pending
            ends[at] = len(pending) - 1
        positions = self.lengths[rows][:, None] + np.arange(longest)[None, :]
        picked = None if whole else list(rows)
        logits = self._forward(tokens, picked, positions, ends.tolist())[:, 0]
        for i in alive:
            answer = self.answers[i]
            fed[i] += answer.pending
            self.lengths[self.rows[i]] += len(answer.pending)
            answer.pending = []
        return logits[torch.tensor(place, device=self.policy.device)] if whole else logits

    def _prefill(self) -> Tensor:
        """Feeds each prompt's new tokens; returns the logits [prompts, vocabulary] after them."""
        feeds: list[list[int]] = []
        starts: list[int] = []
        for slot, ids, keys in zip(self.slots, self.prompts, self.keys, strict=True):
            start = self.cache.shared_prefix(slot, keys)
            starts.append(start)
            feeds.append(ids[start:])
        # Rows with much to read (a new episode, a plan) and rows with little (one observation)
        # are read apart, so that the short ones are not padded to the long ones' length.
        order = sorted(range(len(feeds)), key=lambda i: len(feeds[i]))
        last: list[Tensor | None] = [None] * len(feeds)
        for group in _by_length(order, [len(feed) for feed in feeds]):
            longest = max(len(feeds[i]) for i in group)
            fed = np.full((len(group), longest), self.policy.pad_id, dtype=np.int64)
            positions = np.zeros((len(group), longest), dtype=np.int64)
            for k, i in enumerate(group):
                fed[k, : len(feeds[i])] = feeds[i]
                positions[k] = starts[i] + np.arange(longest)
            whole = len(group) == self.cache.rows and [self.rows[i] for i in group] == list(
                range(len(group))
            )
            rows = None if whole else [self.rows[i] for i in group]
            ends = [len(feeds[i]) - 1 for i in group]
            logits = self._forward(fed, rows, positions, ends, [self.asked[i] for i in group])
            for k, i in enumerate(group):
                last[i] = logits[k, 0]
                self.lengths[self.rows[i]] = starts[i] + len(feeds[i])
        return torch.stack([logits for logits in last if logits is not None])

    def _forward(
        self,
        fed: np.ndarray[Any, np.dtype[np.int64]],
        rows: list[int] | None,
        positions: np.ndarray[Any, np.dtype[np.int64]],
        ends: list[int] | None = None,
        prompts: list[Prompt] | None = None,
    ) -> Tensor:
        """One forward pass; logits [batch, time or 1 (at `ends`), vocabulary]."""
        policy, device = self.policy, self.policy.device
        at = torch.as_tensor(positions, device=device)
        width = int(positions.max()) + 1
        self.cache.aim(None if rows is None else torch.tensor(rows, device=device), at, width)
        dtype = policy.model.dtype
        hidden_from = torch.arange(width, device=device)[None, None, None, :] > at[:, None, :, None]
        mask = torch.zeros(hidden_from.shape, dtype=dtype, device=device)
        mask.masked_fill_(hidden_from, torch.finfo(dtype).min)
        if ends is not None and policy.reader is not None:
            ids, last = torch.as_tensor(fed, device=device), torch.tensor(ends, device=device)
            return policy.reader.next_logits(ids, at, mask, last, self.cache)[:, None]
        # Of a long prompt only the last position's logits are wanted.
        wanted = sorted(set(ends)) if ends is not None else []
        keep = torch.tensor(wanted, device=device) if wanted else 0
        logits: Tensor = policy.model(
            **policy.reading_inputs(
                fed, positions, prompts, self.shifts if rows is None else self.shifts[rows]
            ),
            attention_mask=mask,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=keep,
        ).logits
        if ends is None:
            return logits
        index = torch.tensor([wanted.index(end) for end in ends], device=device)
        return logits[torch.arange(len(ends), device=device), index][:, None]

    def _draw(
        self, logits: Tensor, alive: list[int]
    ) -> tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.float32]]]:
        """Draws one token for each row that is still writing; ids and their log-probabilities."""
        temperature = 1.0 if self.sampling.greedy else self.sampling.temperature
        logits = logits.float() / temperature
        if self.policy.barred is not None:
            logits = logits.index_fill(-1, self.policy.barred, -math.inf)
        bound = [k for k, i in enumerate(alive) if self.answers[i].left is not None]
        if bound:
            logits = forbid(logits, [(k, self.answers[alive[k]].options()) for k in bound])
        logp = torch.log_softmax(logits, dim=-1)
        if self.sampling.greedy:
            ids = logp.argmax(-1)
        else:
            # A race of exponential clocks, as in torch.multinomial, whose own clocks cost more
            # than the rest of a small model's sampling.
            probabilities = logp.exp()
            noise = torch.empty_like(probabilities).uniform_(generator=self.policy.generator)
            noise = noise.log_().neg_()
            ids = probabilities.div_(noise).argmax(-1)
        chosen = logp.gather(-1, ids[:, None])[:, 0]
        return ids.cpu().numpy(), chosen.cpu().numpy()


def forbid(logits: Tensor, allowed: Sequence[tuple[int, Sequence[int]]]) -> Tensor:
    """Logits with everything but the allowed ids at minus infinity, in the rows that are named.

    Args:
        logits: [rows, vocabulary].
        allowed: (row, ids) pairs; other rows stay as they are.
    """
    rows = [row for row, _ in allowed]
    at = [row for row, ids in allowed for _ in ids]
    tokens = [token for _, ids in allowed for token in ids]
    closed = torch.zeros(logits.shape, dtype=torch.bool, device=logits.device)
    closed[torch.tensor(rows, device=logits.device)] = True
    closed[torch.tensor(at, device=logits.device), torch.tensor(tokens, device=logits.device)] = (
        False
    )
    return logits.masked_fill(closed, -math.inf)


def _by_length(order: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    """Cuts rows sorted by length into the groups that are cheapest to read.

    A group costs its rows times its longest, and a pass as much as `_PASS` tokens; the cuts that
    make the sum smallest are found exactly, from the shortest row on.
    """
    firsts = [k for k in range(len(order)) if k == 0 or lengths[order[k]] != lengths[order[k - 1]]]
    bounds = [*firsts, len(order)]
    # best[b]: (cost of reading the rows before bounds[b], where its last group begins)
    best: list[tuple[int, int]] = [(0, 0)]
    for b in range(1, len(bounds)):
        stop = bounds[b]
        longest = lengths[order[stop - 1]]
        best.append(
            min((best[a][0] + (stop - bounds[a]) * longest + _PASS, a) for a in range(b))
        )
    groups: list[list[int]] = []
    b = len(bounds) - 1
    while b > 0:
        a = best[b][1]
        groups.append(list(order[bounds[a] : bounds[b]]))
        b = a
    return groups[::-1]
