"""What every local causal language model does: batched generation with a cache, log-probabilities.

`tiny` and `hf` differ only in how a conversation becomes tokens and where the weights come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from himac_agents.policies.cache import SlotCache
from himac_agents.policy import Completion, Message, Prompt, Sampling, TokenBatch


class CausalPolicy:
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
        self.pad_id = self.end_ids[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id

    # -- text and tokens -------------------------------------------------------------------------

    def encode(self, messages: Sequence[Message], *, continues: bool = False) -> list[int]:
        """See `Codec.encode`."""
        raise NotImplementedError

    def encode_reply(self, text: str) -> list[int]:
        """See `Codec.encode_reply`."""
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        return [*ids, self.end_ids[0]]

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
        self.model.eval()
        return _Decoding(self, cache, slots, prompts, sampling).run()

    def forget(self) -> None:
        """Drops the cache: the weights have changed."""
        self.cache.clear()

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
        logits = self._logits_before(ids, mask).float() / batch.temperature
        logp_all = torch.log_softmax(logits, dim=-1)
        chosen = logp_all.gather(-1, ids[mask][:, None])[:, 0]
        with torch.no_grad():
            entropies = -(logp_all.exp() * logp_all).sum(-1)
        logp = torch.zeros(ids.shape, dtype=chosen.dtype, device=self.device)
        entropy = torch.zeros_like(logp)
        return logp.masked_scatter(mask, chosen), entropy.masked_scatter(mask, entropies)

    def _logits_before(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits [n, vocabulary] that predict the n tokens under `mask`, in row order."""
        logits = self.model(input_ids=ids, use_cache=False).logits
        return logits[:, :-1][mask[:, 1:]]  # type: ignore[no-any-return]

    def parameters(self) -> list[torch.nn.Parameter]:
        """The parameters that learn."""
        return [p for p in self.model.parameters() if p.requires_grad]

    def save_pretrained(self, path: str | Path) -> None:
        """Writes weights (safetensors), configuration and tokenizer into the folder `path`."""
        self.model.save_pretrained(path, safe_serialization=True)
        self.tokenizer.save_pretrained(path)


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
        self.prompts = [list(prompt.token_ids) for prompt in prompts]
        self.outputs: list[list[int]] = [[] for _ in prompts]
        self.logps: list[list[float]] = [[] for _ in prompts]
        # Every row of the cache takes part in a decoding step (no copy of keys and values);
        # rows that are not asked, or have finished, compute something nobody reads.
        self.lengths = np.zeros(cache.rows, dtype=np.int64)
        for slot, row in cache._row.items():
            self.lengths[row] = len(cache.tokens[slot])

    def run(self) -> list[Completion]:
        """Decodes until every prompt has its end token or the most tokens allowed."""
        policy = self.policy
        last = self._prefill()
        alive = np.ones(len(self.prompts), dtype=bool)
        rows = np.asarray(self.rows)
        for step in range(self.sampling.max_tokens):
            ids, logps = self._draw(last)
            for i in np.flatnonzero(alive):
                self.outputs[i].append(int(ids[i]))
                self.logps[i].append(float(logps[i]))
            alive &= ~np.isin(ids, policy.end_ids)
            if not alive.any() or step + 1 == self.sampling.max_tokens:
                break
            fed = np.full((self.cache.rows, 1), policy.pad_id, dtype=np.int64)
            fed[rows[alive], 0] = ids[alive]
            logits = self._forward(fed, None, self.lengths[:, None])
            last = logits[torch.as_tensor(rows, device=policy.device), 0]
            self.lengths[rows[alive]] += 1
        answers = []
        for slot, prompt, ids_, logps_ in zip(
            self.slots, self.prompts, self.outputs, self.logps, strict=True
        ):
            self.cache.tokens[slot] = prompt + ids_[:-1]
            text = policy.decode(ids_)
            answers.append(Completion(text, tuple(ids_), tuple(logps_)))
        return answers

    def _prefill(self) -> Tensor:
        """Feeds each prompt's new tokens; returns the logits [prompts, vocabulary] after them."""
        feeds: list[list[int]] = []
        starts: list[int] = []
        for slot, ids in zip(self.slots, self.prompts, strict=True):
            start = self.cache.shared_prefix(slot, ids)
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
            logits = self._forward(fed, rows, positions, ends)
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
        keep = 0 if ends is None else torch.arange(fed.shape[1], device=device)
        logits: Tensor = policy.model(
            input_ids=torch.as_tensor(fed, device=device),
            attention_mask=mask,
            position_ids=at,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=keep,
        ).logits
        if ends is None:
            return logits
        index = torch.tensor(ends, device=device)
        return logits[torch.arange(len(ends), device=device), index][:, None]

    def _draw(
        self, logits: Tensor
    ) -> tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.float32]]]:
        """Draws one token a row; returns ids and their log-probabilities."""
        temperature = 1.0 if self.sampling.greedy else self.sampling.temperature
        logp = torch.log_softmax(logits.float() / temperature, dim=-1)
        if self.sampling.greedy:
            ids = logp.argmax(-1)
        else:
            ids = torch.multinomial(logp.exp(), 1, generator=self.policy.generator)[:, 0]
        chosen = logp.gather(-1, ids[:, None])[:, 0]
        return ids.cpu().numpy(), chosen.cpu().numpy()


def _by_length(order: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    """Cuts rows sorted by length into groups whose longest is at most about twice the shortest."""
    groups: list[list[int]] = []
    for i in order:
        if groups and lengths[i] <= max(24, 2 * lengths[groups[-1][0]]):
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups
