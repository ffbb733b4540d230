"""What every local causal language model does: batched generation with a cache, log-probabilities.

How a batch is written, token by token, is in `himac_agents.policies.generation.decode`. `tiny` and
`chat` differ only in how a conversation becomes tokens and where the weights come from.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from himac_agents.distributed import team
from himac_agents.policies.base import Completion, Message, Prompt, Sampling, TokenBatch
from himac_agents.policies.generation.cache import SlotCache
from himac_agents.policies.generation.constrained import constraints
from himac_agents.policies.generation.costs import Costs
from himac_agents.policies.generation.decode import Decoding
from himac_agents.policies.generation.reader import Reader
from himac_agents.policies.selective import chunk_rows, chunked_logprobs, selective_logprobs
from himac_agents.policies.sharding import Shards, resting
from himac_agents.policies.trees import Layout, Trees


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
    """

    def __init__(self, model: Any, tokenizer: Any, end_ids: Sequence[int]) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.end_ids = tuple(end_ids)
        self.cache = SlotCache()
        self.device = next(model.parameters()).device
        #: Ids that are never written: those that stand for something other than text.
        self.barred: Tensor | None = None
        #: A quicker forward pass for rollouts, where one fits the model.
        self.reader: Reader | None = None
        #: How sequences that begin alike are learned from together, where the model allows it.
        self.trees: Trees | None = None
        #: Where the model is sharded over several processes: how.
        self.shards: Shards | None = None
        self._costs: dict[bool, Costs] = {}
        #: Called when the weights have changed: by those that hold a copy of them.
        self.followers: list[Callable[[], None]] = []
        #: Told of each batch's answers, by whoever wants to show how far it is.
        self.on_answers: Callable[[Sequence[Completion]], None] | None = None
        #: How many tokens the model can read and write; None: as many as there are.
        self.context_length: int | None = None
        self.pad_id = self.end_ids[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id

    def bar(self, ids: Iterable[int]) -> None:
        """Lets the model never write these ids, beside those that it never writes already."""
        held = [] if self.barred is None else self.barred.tolist()
        found = sorted({*held, *ids})
        self.barred = torch.tensor(found, device=self.device) if found else None

    # -- text and tokens -------------------------------------------------------------------------

    @abstractmethod
    def encode(self, messages: Sequence[Message], *, continues: bool = False) -> list[int]:
        """See `Codec.encode`."""

    def encode_reply(self, text: str) -> tuple[int, ...]:
        """See `Codec.encode_reply`."""
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        return (*ids, *self.end_ids[:1])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a completion, without its end token."""
        kept = list(ids[:-1]) if ids and ids[-1] in self.end_ids else list(ids)
        return str(self.tokenizer.decode(kept, skip_special_tokens=False)).strip()

    # -- generation ------------------------------------------------------------------------------

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """Answers all prompts in one batch; see `BatchPolicy.generate`.

        Prompts with a slot keep their keys and values for the next call; a batch mixes lengths
        freely. Prompts without a slot are answered with a cache that is thrown away.
        One that could grow beyond what the model can read gets an error instead of an answer.
        """
        if any(not prompt.token_ids for prompt in prompts):
            raise ValueError("a local model needs Prompt.token_ids; make them with policy.encode")
        errors = [self.too_long(prompt, sampling.max_tokens) for prompt in prompts]
        short = [prompt for prompt, error in zip(prompts, errors, strict=True) if error is None]
        given = self._generate(short, sampling) if short else []
        if self.on_answers is not None:
            self.on_answers(given)
        answers = iter(given)
        return [next(answers) if e is None else Completion("", error=e) for e in errors]

    def _generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """`generate` for prompts that the model can read.

        Raises:
            RuntimeError: The weights are sharded over the processes, and were not gathered.
        """
        if self.shards is not None and not self.shards.whole:
            raise RuntimeError(
                "a sharded model can play only after forget() has gathered its weights"
            )
        if all(prompt.slot is not None for prompt in prompts):
            cache, slots = self.cache, [int(prompt.slot or 0) for prompt in prompts]
            if len(set(slots)) != len(slots):
                raise ValueError("two prompts of one batch share a slot")
        else:
            cache, slots = SlotCache(), list(range(len(prompts)))
        try:
            with self._ready(learning=False):
                return Decoding(self, cache, slots, prompts, sampling).run()
        except BaseException:
            # Rows may hold what their bookkeeping does not know of.
            cache.clear()
            raise

    def too_long(self, prompt: Prompt, answer: int) -> str | None:
        """Why a prompt cannot be answered with so many tokens; None where it can."""
        if self.context_length is None or len(prompt.token_ids) + answer <= self.context_length:
            return None
        return (
            f"context length: a conversation of {len(prompt.token_ids):,} tokens with an answer of "
            f"up to {answer:,} exceeds the {self.context_length:,} that a "
            f"{type(self.model).__name__} of this kind can read. Let it remember fewer steps "
            "(--history N on a flat environment), shorten its answers (--max-command-tokens, "
            "--max-blueprint-tokens), or take another model"
        )

    def forget(self) -> None:
        """Drops the cache: the weights have changed. Those that hold a copy of them are told.

        Of a model that is sharded over processes, all of them call it: it is gathered to play.
        """
        self.cache.clear()
        if self.shards is not None and self.shards.plays:
            self.shards.gather()
        if self.reader is not None:
            self.reader.forget()
        for follow in self.followers:
            follow()

    @property
    def costs(self) -> Costs:
        """What reading costs with this model, where it is."""
        ours = self.reader is not None
        if ours not in self._costs:
            dtype = self.model.dtype if self.reader is None else self.reader.dtype
            self._costs[ours] = Costs.of(self.model, dtype, ours=ours)
        return self._costs[ours]

    @contextmanager
    def _ready(self, *, learning: bool) -> Iterator[None]:
        """Around every use of the model; subclasses switch adapters and precision here."""
        if self.model.training:
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
        """Log-probabilities alone; see `logprobs_and_entropy`."""
        return self.logprobs_and_entropy(batch)[0]

    def logprobs_and_entropy(self, batch: TokenBatch) -> tuple[Tensor, Tensor]:
        """Log-probability and (detached) entropy in nats of each token of the mask, [batch, time].

        Only the positions under the mask go through the output layer, and where their logits would
        be many, only a chunk of them at a time: see `himac_agents.policies.selective`.
        """
        return self.logprobs_and_states(batch, None)[:2]

    def logprobs_and_states(
        self, batch: TokenBatch, where: NDArray[np.bool_] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same, and the hidden states that predict the tokens at `where`, from the same pass.

        Args:
            batch: Rows of tokens.
            where: [batch, time], never at time 0; None: no states are asked for.

        Returns:
            Log-probabilities, entropies, and states [n, width] in row order, differentiable.
        """
        ids = self._learned_ids(batch)
        mask = torch.as_tensor(batch.mask, device=self.device) > 0
        chosen = ids[mask]
        limits: dict[str, Any] = {
            "temperature": batch.temperature,
            "barred": self.barred,
            "constrained": constraints(batch),
        }
        layout = self._layout(ids, batch)
        with self._ready(learning=True):
            if len(chosen) <= chunk_rows(self.vocabulary):
                logits, hidden = self._logits_before(layout, mask)
                found, entropies = selective_logprobs(logits, chosen, **limits)
            elif self.shards is not None:
                found, entropies, hidden = self._chunked_within(
                    self.shards, layout, mask, chosen, limits
                )
            else:
                none = torch.zeros_like(mask)
                none[0, 1] = True  # the output layer is called, but for one position only
                _, hidden = self._logits_before(layout, none)
                states = layout.before(hidden, mask)
                found, entropies = chunked_logprobs(
                    states, self._head, chosen, self.vocabulary, **limits
                )
        logp = torch.zeros(ids.shape, dtype=found.dtype, device=self.device)
        entropy = torch.zeros_like(logp)
        shown = hidden[:, :0, :].reshape(0, hidden.shape[-1])
        if where is not None:
            shown = layout.before(hidden, torch.as_tensor(where, device=self.device))
        return logp.masked_scatter(mask, found), entropy.masked_scatter(mask, entropies), shown

    def states(self, batch: TokenBatch, where: NDArray[np.bool_]) -> Tensor:
        """The hidden states [n, width] that predict the tokens at `where`; see above."""
        ids = self._learned_ids(batch)
        one = torch.zeros_like(ids, dtype=torch.bool)
        one[0, 1] = True
        layout = self._layout(ids, batch)
        with self._ready(learning=True):
            _, hidden = self._logits_before(layout, one)
        return layout.before(hidden, torch.as_tensor(where, device=self.device))

    def _learned_ids(self, batch: TokenBatch) -> Tensor:
        """A batch's ids on the model's device.

        Raises:
            ValueError: They are more than the model can read.
        """
        longest = int(batch.token_ids.shape[1])
        if self.context_length is not None and longest > self.context_length:
            raise ValueError(
                f"context length: a training sequence of {longest:,} tokens exceeds the "
                f"{self.context_length:,} that {type(self.model).__name__} can read: show the "
                "agent fewer steps (--history N on a flat environment)"
            )
        if self.reader is not None:
            # The memory of the weights that only rollouts need.
            self.reader.forget()
        return torch.as_tensor(batch.token_ids, device=self.device)

    @property
    def vocabulary(self) -> int:
        """How many logits a token has."""
        return int(self.model.get_output_embeddings().weight.shape[0])

    @property
    def width(self) -> int:
        """The size of a hidden state."""
        return int(self.model.get_output_embeddings().weight.shape[1])

    def _layout(self, ids: Tensor, batch: TokenBatch) -> Layout:
        """What the model reads of a batch: its rows, or the trees that they are."""
        found = None
        if self.trees is not None:
            found = self.trees.layout(batch.token_ids, batch.lengths, self.pad_id, self.device)
        return found or Layout(self.learning_inputs(ids, batch))

    def _logits_before(self, layout: Layout, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [n, vocabulary] that predict the n tokens under `mask`, in row order.

        A hook before the output layer lets only these positions through, whatever the model does
        with its logits afterwards (scaling, soft caps).

        Returns:
            The logits, and the hidden states [rows, places, width] of all that was read.
        """
        seen: list[Tensor] = []

        def keep(module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            seen.append(inputs[0])
            return (layout.before(inputs[0], mask)[None], *inputs[1:])

        return self._hooked(keep, layout.inputs)[0], seen[0]

    def _chunked_within(
        self, shards: Shards, layout: Layout, mask: Tensor, chosen: Tensor, limits: dict[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`chunked_logprobs` of a sharded model, within its one pass.

        The output layer by itself would be one more pass, and one that the other processes do not
        make. So the chunks are made before the pass is over, while the output layer is gathered,
        and what they give leaves the model in place of logits: when its gradient comes, the output
        layer is gathered again.

        Returns:
            Log-probabilities and entropies [n], and the hidden states of all that was read.
        """
        root = shards.model
        said: list[Any] = []
        seen: list[Tensor] = []
        entropies: list[Tensor] = []

        def keep(module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            seen.append(inputs[0])
            return (inputs[0][:, :1], *inputs[1:])  # called it is, but for one position only

        def head(states: Tensor) -> Tensor:
            with resting(root.base_model, said[0]):
                return self._head(states, root.forward)

        def in_chunks(module: torch.nn.Module, inputs: Any, output: Any) -> Any:
            for hook in hooks:
                hook.remove()
            states = layout.before(seen[0], mask)
            output.logits, entropy = chunked_logprobs(
                states, head, chosen, self.vocabulary, **limits
            )
            entropies.append(entropy)
            return output

        hooks = [
            root.base_model.register_forward_hook(lambda _, __, output: said.append(output)),
            root.get_output_embeddings().register_forward_pre_hook(keep),
            # Before the hook that lets go of what was gathered.
            root.register_forward_hook(in_chunks, prepend=True),
        ]
        try:
            found = self.model(**layout.inputs, use_cache=False).logits
        finally:
            for hook in hooks:
                hook.remove()
        return found, entropies[0], seen[0]

    def _head(self, states: Tensor, run: Callable[..., Any] | None = None) -> Tensor:
        """Logits of hidden states [n, width], as the model itself makes them of its own.

        The model is run on one token, and the states are put in its place before the output layer:
        so whatever the model does with its logits afterwards is done with these.

        Args:
            states: The states.
            run: What runs the model; None: the model.
        """

        def put(module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (states[None], *inputs[1:])

        one = np.full((1, 1), self.pad_id, dtype=np.int64)
        blank = np.zeros((1, 1), dtype=np.float32)
        batch = TokenBatch(one, blank, blank, blank, np.ones(1, dtype=np.int64))
        with self._ready(learning=True):
            inputs = self.learning_inputs(torch.as_tensor(one, device=self.device), batch)
            return self._hooked(put, inputs, run)[0]

    def _hooked(
        self,
        hook: Callable[..., tuple[Tensor, ...]],
        inputs: dict[str, Any],
        run: Callable[..., Any] | None = None,
    ) -> Tensor:
        """The model's logits with a hook before its output layer; see `_head` for `run`."""
        handle = self.model.get_output_embeddings().register_forward_pre_hook(hook)
        try:
            logits: Tensor = (run or self.model)(**inputs, use_cache=False).logits
        finally:
            handle.remove()
        return logits

    def learning_inputs(self, ids: Tensor, batch: TokenBatch) -> dict[str, Any]:
        """The model's arguments for a whole batch; rows are padded on the right."""
        return {"input_ids": ids}

    def parameters(self) -> list[torch.nn.Parameter]:
        """The parameters that learn; of a model that is sharded, this process's parts of them."""
        if self.shards is not None:
            self.shards.scatter()
        return [p for p in self.model.parameters() if p.requires_grad]

    def save_pretrained(self, path: str | Path) -> None:
        """Writes weights (safetensors), configuration and tokenizer into the folder `path`.

        Of a model that is sharded over processes, all of them call it; the leading one writes.
        """
        if self.shards is None:
            self._write(path, None)
            return
        state = self.shards.state()
        team().led(lambda: self._write(path, state))

    def _write(self, path: str | Path, state: dict[str, Tensor] | None) -> None:
        with without_progress_bars():
            self.model.save_pretrained(path, state_dict=state)
        self.tokenizer.save_pretrained(path)
