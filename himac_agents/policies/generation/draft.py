"""Guesses of what is written next, so that one forward pass can read several tokens.

A pass costs a small model far more than the tokens in it. An agent's answers repeat themselves
("go to", a name, a number, the end), so what followed the same few tokens before is a good guess
of what follows now. The guessed tokens are fed together with those that are known; then every
one of them is drawn as it would have been without, with its own random number, and the first that
differs ends what the pass was good for (speculative decoding with an n-gram draft: Leviathan et
al., 2023, arXiv 2211.17192; here the drawn token itself is compared, so that the answer is the same
token for token). A guess changes the speed, never the answer.
"""

from __future__ import annotations

from collections.abc import Sequence

#: How many tokens a guess looks back on: the more, the surer; the fewer, the more often known.
_BACK = (5, 3, 2)
LONGEST = max(_BACK)
#: Beginnings that are remembered, and the most that a guess is long.
_MEMORY, MOST = 50_000, 4
#: Beginnings met so often or oftener are alike; as many answers as a first estimate is worth.
_OFTEN, _TRUST = 4, 8

#: Tokens looked back on, cases (at most `_OFTEN`), and whether all of them agree.
_Kind = tuple[int, int, bool]


class Draft:
    """Remembers which token followed which, and how good a guess that is."""

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], dict[int, int]] = {}
        # How often guesses of a kind would have been right, and how often they were looked at.
        self._right: dict[_Kind, tuple[int, int]] = {}

    def learn(self, context: Sequence[int], answer: Sequence[int]) -> None:
        """Remembers an answer.

        Args:
            context: What it was an answer to; its last tokens are enough.
            answer: Its tokens.
        """
        if len(self._after) > _MEMORY:
            self._after = {}
        before = [*context[-LONGEST:], *answer]
        for end in range(len(before) - len(answer), len(before)):
            self._look(before[max(0, end - LONGEST) : end], before[end])
            for back in _BACK:
                if back <= end:
                    counts = self._after.setdefault(tuple(before[end - back : end]), {})
                    counts[before[end]] = counts.get(before[end], 0) + 1

    def guess(
        self,
        context: Sequence[int],
        choices: Sequence[tuple[int, ...]] | None,
        most: int,
        least: float = 0.0,
    ) -> list[int]:
        """What probably comes next: none to `most` tokens.

        Args:
            context: What is there; its last tokens are enough.
            choices: What the rest of the answer can be; None where it is free.
            most: Tokens that are wanted at most.
            least: How likely a token must be right, with all before it, to be worth its reading;
                at least in half the cases, by what was remembered.
        """
        guessed: list[int] = []
        chance = 1.0
        seen = list(context[-LONGEST:])
        while len(guessed) < most:
            options = None
            if choices is not None:
                options = {choice[len(guessed)] for choice in choices if len(choice) > len(guessed)}
                if not options:
                    break
            token = next(iter(options)) if options and len(options) == 1 else None
            if token is None:
                token, share = self._next(seen, options)
                chance *= share
            if token is None or chance < least:
                break
            if choices is not None:
                place = len(guessed)
                choices = [c for c in choices if len(c) > place and c[place] == token]
            guessed.append(token)
            seen = [*seen[1 - LONGEST :], token]
        return guessed

    def _next(self, seen: list[int], options: set[int] | None) -> tuple[int | None, float]:
        """The token that followed in at least half the cases, where any is known, and its chance.

        By the cases alone, what was seen once is no more certain than what was seen twice in three.
        How often such guesses were right weighs more, the more of them were looked at: of a policy
        that hardly repeats itself the cases say too much. Where the answer is constrained, few
        tokens are possible, and the cases stand alone.
        """
        found = self._followed(seen, options)
        if found is None:
            return None, 0.0
        token, kind, chance = found
        if options is None:
            right, looked = self._right.get(kind, (0, 0))
            chance = (right + _TRUST * chance) / (looked + _TRUST)
        return token, chance

    def _look(self, seen: list[int], token: int) -> None:
        """Notes whether a guess of what follows would have been right: `token` does."""
        found = self._followed(seen, None)
        if found is not None and found[0] is not None:
            right, looked = self._right.get(found[1], (0, 0))
            self._right[found[1]] = (right + (found[0] == token), looked + 1)

    def _followed(
        self, seen: list[int], options: set[int] | None
    ) -> tuple[int | None, _Kind, float] | None:
        """A guess (None: nothing followed in half the cases), its kind, and its chance by cases."""
        for back in _BACK:
            counts = self._after.get(tuple(seen[-back:]), {}) if back <= len(seen) else {}
            if options is not None:
                counts = {token: n for token, n in counts.items() if token in options}
            if counts:
                token = max(counts, key=counts.__getitem__)
                n, total = counts[token], sum(counts.values())
                kind = (back, min(total, _OFTEN), n == total)
                return (token if 2 * n >= total else None), kind, (n + 1) / (total + 2)
        return None
