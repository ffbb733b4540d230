"""Batched generation with a cache: one call of a local model's `generate`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from himac_agents.policies.base import Completion, Prompt, Sampling
from himac_agents.policies.generation.cache import SlotCache
from himac_agents.policies.generation.constrained import Answer
from himac_agents.policies.generation.draft import LONGEST, MOST
from himac_agents.policies.generation.draw import draw, draw_among
from himac_agents.policies.generation.passes import Feed, Passes, Read, Writer, joined
from himac_agents.policies.generation.prefixes import sharing
from himac_agents.policies.noise import uniforms


class Decoding:
    """One call of `generate`: feed what the cache lacks, then write token by token."""

    def __init__(
        self,
        policy: Writer,
        cache: SlotCache,
        slots: Sequence[int],
        prompts: Sequence[Prompt],
        sampling: Sampling,
    ) -> None:
        self.policy, self.cache, self.sampling = policy, cache, sampling
        self.costs = policy.costs
        self.noise = [prompt.noise for prompt in prompts]
        self.slots = slots
        self.rows = cache.seat(slots)
        self.asked = prompts
        self.prompts = [list(prompt.token_ids) for prompt in prompts]
        self.keys = [policy.prefix_keys(prompt) for prompt in prompts]
        shifts = np.zeros(cache.rows, dtype=np.int64)
        for row, prompt in zip(self.rows, prompts, strict=True):
            shifts[row] = policy.prefix_shift(prompt)
        self.answers = [Answer(prompt.choices) for prompt in prompts]
        self.fed = [list(keys) for keys in self.keys]
        # Rows that lie between those that are read may take part in a pass, though they are not
        # asked, or have finished: they compute something nobody reads.
        self.lengths = np.zeros(cache.rows, dtype=np.int64)
        for slot, row in cache.row_of.items():
            self.lengths[row] = len(cache.tokens[slot])
        cache.reserve(max(len(ids) for ids in self.prompts) + sampling.max_tokens)
        self.passes = Passes(policy, cache, self.lengths, shifts)

    @cached_property
    def _barred(self) -> frozenset[int]:
        """Ids that are never written."""
        return frozenset(() if self.policy.barred is None else self.policy.barred.tolist())

    def run(self) -> list[Completion]:
        """Decodes until every prompt has its end token or the most tokens allowed."""
        policy = self.policy
        alive = list(range(len(self.prompts)))
        drafts = [self._guess(i, len(alive)) for i in alive]
        read = self._prefill(drafts)
        while alive := self._write(alive, drafts, read):
            drafts = [self._guess(i, len(alive)) for i in alive]
            read = self._feed(alive, drafts)
        completions = []
        for slot, answer, held, prompt in zip(
            self.slots, self.answers, self.fed, self.prompts, strict=True
        ):
            self.cache.tokens[slot] = held
            self.cache.draft.learn(prompt, answer.tokens)
            text = policy.decode(answer.tokens)
            parts = (tuple(answer.tokens), tuple(answer.logps), tuple(answer.allowed))
            # What knows no end is never cut.
            cut = bool(policy.end_ids) and answer.tokens[-1] not in policy.end_ids
            completions.append(Completion(text, *parts, cut=cut))
        return completions

    def _guess(self, i: int, rows: int) -> list[int]:
        """What row i, one of so many, is expected to write next, to be fed before it is known."""
        answer, written = self.answers[i], len(self.answers[i].tokens)
        # A picture's tokens have places of their own, which what follows in one pass lacks.
        if not written and self.asked[i].images:
            return []
        left = None if answer.left is None else [choice[written:] for choice in answer.left]
        most = min(MOST, self.sampling.max_tokens - written - 1)
        context = [*self.prompts[i][-LONGEST:], *answer.tokens]
        return self.cache.draft.guess(context, left, most, self.costs.least_chance(rows))

    def _write(self, alive: list[int], drafts: list[list[int]], read: Read) -> list[int]:
        """Draws what the last pass allows; returns the rows that need another one.

        Args:
            alive: Rows that are still writing.
            drafts: The guess that each of them was fed.
            read: What predicts each one's next tokens.
        """
        ends, most = self.policy.end_ids, self.sampling.max_tokens
        at = [0] * len(alive)
        going = list(range(len(alive)))
        unfinished: list[int] = []
        while going:
            places = [read.first[k] + at[k] for k in going]
            drawn = self._draw(read, places, [alive[k] for k in going])
            agree: list[int] = []
            for k, (token, logp) in zip(going, drawn, strict=True):
                i = alive[k]
                answer = self.answers[i]
                answer.write(token, logp)
                answer.write_forced()
                known = 0
                for new, guessed in zip(answer.pending, drafts[k][at[k] :], strict=False):
                    if new != guessed:
                        break
                    known += 1
                self._fed(i, known)
                at[k] += known
                if answer.tokens[-1] not in ends and len(answer.tokens) < most:
                    # All that was written has been read already, so that the next can be drawn.
                    (unfinished if answer.pending else agree).append(k)
            going = agree
        return [alive[k] for k in sorted(unfinished)]

    def _fed(self, i: int, count: int) -> None:
        """Row i's cache holds so many more tokens of what was to be fed."""
        answer = self.answers[i]
        self.fed[i] += answer.pending[:count]
        self.lengths[self.rows[i]] += count
        del answer.pending[:count]

    def _feed(self, alive: list[int], drafts: list[list[int]]) -> Read:
        """Feeds what was written since the last pass and what is guessed to follow."""
        feeds = [
            Feed(self.rows[i], list(self.answers[i].pending), draft)
            for i, draft in zip(alive, drafts, strict=True)
        ]
        read = self.passes.read(feeds)
        for i in alive:
            self._fed(i, len(self.answers[i].pending))
        return read

    def _prefill(self, drafts: list[list[int]]) -> Read:
        """Feeds each prompt's new tokens and a guess."""
        cache, count = self.cache, len(self.prompts)
        starts = [cache.shared_prefix(*pair) for pair in zip(self.slots, self.keys, strict=True)]
        # Pictures take places of their own.
        words = [i for i in range(count) if not self.asked[i].images]
        held, given = sharing(self.keys, starts, cache.tokens, words)
        cache.lend([(cache.row_of[slot], self.rows[i], a, b) for slot, i, a, b in held])
        for _, i, _, b in held:
            starts[i] = b
        self.lengths[self.rows] = starts
        # What need not be read, once those that give have been, is to be worth another pass.
        if sum(b - a for _, _, a, b in given) <= self.costs.pass_:
            given = []
        takers = sorted(i for _, i, _, _ in given)
        givers = sorted({*range(count)} - {*takers})
        read = self._first(drafts, starts, givers)
        if not given:
            return read
        cache.lend([(self.rows[j], self.rows[i], a, b) for j, i, a, b in given])
        for _, i, _, b in given:
            starts[i] = b
        return joined([read, self._first(drafts, starts, takers)], [givers, takers])

    def _first(self, drafts: list[list[int]], starts: list[int], which: list[int]) -> Read:
        """Feeds some prompts from where their rows end."""
        feeds = []
        for i in which:
            self.lengths[self.rows[i]] = starts[i]
            known = self.prompts[i][starts[i] :]
            feeds.append(Feed(self.rows[i], known, drafts[i], self.asked[i]))
        read = self.passes.read(feeds)
        for feed in feeds:
            self.lengths[feed.row] += len(feed.known)
        return read

    def _draw(self, read: Read, places: list[int], rows: list[int]) -> list[tuple[int, float]]:
        """Draws one token for each row that is still writing; ids and log-probabilities.

        Args:
            read: What predicts them.
            places: For each row where in it.
            rows: Which ones.
        """
        drawn = None
        if not self.sampling.greedy:
            written = [len(self.answers[i].tokens) for i in rows]
            drawn = uniforms([self.noise[i] for i in rows], written)
        found: list[tuple[int, float]] = [(0, 0.0)] * len(rows)
        constrained = [k for k, i in enumerate(rows) if self.answers[i].left is not None]
        free = [k for k, i in enumerate(rows) if self.answers[i].left is None]
        device = read.states.device
        for group, few in ((constrained, True), (free, False)):
            if not group:
                continue
            states = read.states[torch.tensor([places[k] for k in group], device=device)]
            numbers = None if drawn is None else drawn[group]
            if few:
                options = [self.answers[rows[k]].options() for k in group]

                def among(ids: NDArray[np.int64], states: Tensor = states) -> Tensor:
                    return read.head(states, torch.as_tensor(ids, device=device))

                pair = draw_among(among, options, self.sampling, self._barred, numbers)
            else:
                logits = read.head(states, None)
                pair = draw(logits, self.sampling, self.policy.barred, numbers)
            for k, token, logp in zip(group, *pair, strict=True):
                found[k] = (token, logp)
        return found
