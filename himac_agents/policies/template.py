"""How a model's chat template writes conversations: measured on a dummy one, checked at once.

Nothing is known of a template but what it renders. The rules that follow from it:

- **The end of a turn** is the first token that the template writes after an assistant's words,
  whatever the tokenizer's map of special tokens says. Where it writes none, it is the end-of-text
  token, which then stands where the model wrote it.
- **No system role**: where the template refuses one, drops it, or moves it about as the
  conversation grows, the system's words stand at the head of the first user message.
- **What the generation prompt adds** (`<think>`, or an empty thought) and the template does not
  show of earlier answers is taken away again once the answer is an earlier one.
- **Words are encoded where they stand** and cut out, so that a tokenizer that puts a blank before
  each text does so only where the template's own text has one.
- **Control tokens in words** are spelled out: no observation can end a turn or begin another.

A short conversation is then written piece by piece and compared with the template's own whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from himac_agents.policies.base import Message, fold_system
from himac_envs.errors import HiMACError

#: Words that no template holds.
_ASKED, _SAID, _HEARD, _SYSTEM = "himac0asked", "himac0said", "himac0heard", "himac0system"
#: After one of these a text is encoded as in the middle of another.
_ANCHORS = ("\n", "x", ".")
#: Marks with which answers are written: they mean something, and end no turn.
_MEANT = re.compile(
    r"<\s?/?\s?(?:sub_?done|action|answer|blueprint|sub_?goal|think|thinking|thought|reason|reasoning)"
    r"\s?/?\s?>|\[/?THINK\]",
    re.IGNORECASE,
)
_CONTROL = re.compile(r"<[|\uff5c].*[|\uff5c]>")
#: What opens a thought, in the forms whose closing mark is known.
_OPENING = re.compile(r"\s*(?:<([\w:]+)>|\[([\w:]+)\])\s*")
#: Replies, and other messages, whose ids are kept ready: games repeat themselves.
_KEPT, _HELD = 100_000, 20_000


class TemplateError(HiMACError, ValueError):
    """A chat template that conversations cannot be written with."""


class ChatTemplate:
    """See the module's text.

    Args:
        tokenizer: A fast tokenizer with a chat template.
        turn: A message as the template takes it.
        options: Further arguments of the template.
        named: Ids that the model's settings name as ends.

    Attributes:
        end: The id that ends an assistant's turn.
        folds: Whether the system's words stand in the first user message.
        opened: The mark with which the template opens a thought that the model is to close; "".
        notes: What was mended, in words.

    Raises:
        TemplateError: The template cannot be written piece by piece; the message says where.
    """

    def __init__(
        self,
        tokenizer: Any,
        turn: Callable[[Message], dict[str, Any]],
        options: Mapping[str, Any] | None = None,
        named: Sequence[int] = (),
    ) -> None:
        self._tokenizer, self._turn, self._options = tokenizer, turn, dict(options or {})
        self.notes: list[str] = []
        self.folds = False
        self._replies: dict[str, tuple[int, ...]] = {}
        self._known: dict[tuple[Any, ...], list[int]] = {}
        self._measure(named)
        self._control = self._control_tokens()
        self.folds = not self._takes_system()
        if self.folds:
            self.notes.append("no system role: its words stand in the first user message")
        self._check()

    # -- conversations to ids ----------------------------------------------------------------------

    def opening(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a conversation's beginning, up to where the assistant is to speak."""
        return self._ready(self._opening, messages)

    def following(self, messages: Sequence[Message]) -> list[int]:
        """Ids of what comes after an assistant's turn, from behind its end token on."""
        return self._ready(self._following, messages)

    def _ready(
        self, write: Callable[[Sequence[Message]], list[int]], messages: Sequence[Message]
    ) -> list[int]:
        """What `write` makes of messages; of the same ones only once."""
        told = tuple((m.role, m.text, len(m.images)) for m in messages)
        key = (write.__name__, self.folds, told)
        ids = self._known.get(key)
        if ids is None:
            if len(self._known) > _HELD:
                self._known.clear()
            ids = self._known[key] = write(messages)
        return list(ids)

    def _opening(self, messages: Sequence[Message]) -> list[int]:
        spelled, mark = self._spelled(messages)
        return self._after("", self._render(spelled), mark)

    def _following(self, messages: Sequence[Message]) -> list[int]:
        spelled, mark = self._spelled(messages)
        shown = self._render([Message("user", _ASKED), Message("assistant", _SAID), *spelled])
        if not shown.startswith(self._history):
            raise TemplateError(
                "the chat template changes earlier turns when further ones follow: "
                f"{_around(self._history, shown)}. A conversation must grow at its end; give the "
                "tokenizer another chat template"
            )
        return self._after(self._history, shown[len(self._history) :], mark)

    def reply(self, text: str) -> tuple[int, ...]:
        """Ids of an assistant's turn as the model would write it, end token included.

        Where the template has opened a thought, a text without one closes it first.
        """
        ids = self._replies.get(text)
        if ids is None:
            if len(self._replies) > _KEPT:
                self._replies.clear()
            words = self._lead if not self._extra else ""
            said = text
            if self.opened:
                bare = text.lstrip()
                said = bare.removeprefix(self.opened).lstrip("\n")
                if self._closing not in bare:
                    words = f"\n{self._closing}\n\n"
            ids = self._replies[text] = self._answer(self._prompt, words, said)
        return ids

    def past(self, text: str) -> tuple[int, tuple[int, ...]]:
        """An assistant's turn as the template shows it once others follow.

        Returns:
            How many of the ids before the turn are to be taken away, and the turn's ids.
        """
        bare = self._prompt[: len(self._prompt) - len(self._extra)]
        before, after = self._encode(self._prompt), self._encode(bare)
        kept = _shared(before, after)
        return len(before) - kept, (*after[kept:], *self._answer(bare, self._lead, text))

    @property
    def rewrites(self) -> bool:
        """Whether earlier turns are shown in another way than they were written."""
        return bool(self._extra)

    def words(self, text: str, *, ended: bool) -> str:
        """An answer's text, with the thought that the template opened for it.

        An empty thought is left out. One that was never closed is shown as a thought where the
        answer was cut, and taken for the answer where the model ended its turn.
        """
        if (lead := self._lead.strip()) and not self._extra:
            text = text.removeprefix(lead).lstrip()
        if not self.opened or text.startswith(self.opened):
            return text
        thought, closed, rest = text.partition(self._closing)
        if closed and not thought.strip():
            return rest.lstrip()
        return f"{self.opened}\n{text}" if closed or not ended else text

    # -- encoding ----------------------------------------------------------------------------------

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _after(self, before: str, text: str, mark: str = "") -> list[int]:
        """Ids of a text that follows another; at each `mark` it is taken apart."""
        first, *rest = text.split(mark) if mark else [text]
        known, whole = self._encode(before), self._encode(before + first)
        ids = whole[len(known) :] if whole[: len(known)] == known else self._inside(first)
        for piece in rest:
            ids += self._inside(piece)
        return ids

    def _inside(self, text: str) -> list[int]:
        """Ids of a text in the middle of another: without the blank that some put before one."""
        for anchor in _ANCHORS:
            known, whole = self._encode(anchor), self._encode(anchor + text)
            if whole[: len(known)] == known:
                return whole[len(known) :]
        return self._encode(text)

    def _answer(self, before: str, words: str, text: str) -> tuple[int, ...]:
        """Ids of `words` (the template's own) and a text, with the end token."""
        (spelled, *_), mark = self._spelled([Message("assistant", text)])
        whole = words + spelled.text + (self._trail + self._end_text)
        ids = self._after(before, whole, mark)
        return (*ids,) if ids and ids[-1] == self.end else (*ids, self.end)

    def _spelled(self, messages: Sequence[Message]) -> tuple[list[Message], str]:
        """Messages, folded where that is needed, with a mark in each control token; the mark."""
        found = fold_system(messages) if self.folds else list(messages)
        texts = [m.text.encode("utf-8", "replace").decode("utf-8") for m in found]
        mark = ""
        if any(map(self._control.search, texts)):
            used = set("".join(texts))
            mark = next(c for c in map(chr, range(0xE000, 0xF8FF)) if c not in used)
            for place, text in enumerate(texts):
                # One control token may stand in another: until none is left.
                while self._control.search(text):
                    text = self._control.sub(lambda m: m[0][0] + mark + m[0][1:], text)
                texts[place] = text
        return [replace(m, text=text) for m, text in zip(found, texts, strict=True)], mark

    def _render(self, messages: Sequence[Message]) -> str:
        turns = [self._turn(message) for message in messages]
        return str(
            self._tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True, **self._options
            )
        )

    # -- what the template is like -----------------------------------------------------------------

    def _measure(self, named: Sequence[int]) -> None:
        """Finds what stands around an assistant's words, and what ends them."""
        asked, said, heard = (
            Message("user", _ASKED),
            Message("assistant", _SAID),
            Message("user", _HEARD),
        )
        try:
            self._prompt, shown = self._render([asked]), self._render([asked, said, heard])
        except Exception as error:
            raise TemplateError(
                f"the chat template refuses a question, an answer and a question: {error}"
            ) from error
        places = [shown.find(word) for word in (_ASKED, _SAID, _HEARD)]
        if -1 in places or places != sorted(places) or _ASKED not in self._prompt:
            raise TemplateError(
                f"the chat template does not show what was said in order: it writes {shown!r}"
            )
        prompt = self._prompt.rpartition(_ASKED)[2]
        header, rest = shown[places[0] + len(_ASKED) : places[1]], shown[places[1] + len(_SAID) :]
        shared = _shared(prompt, header)
        self._extra, self._lead = prompt[shared:], header[shared:]
        tail = rest[: rest.find(_HEARD)]
        self._end_text, self._trail = self._end_of(tail.lstrip(), named), ""
        if self._end_text:
            self._trail = tail[: len(tail) - len(tail.lstrip())]
            self.end = int(self._tokenizer.convert_tokens_to_ids(self._end_text))
        elif self._tokenizer.eos_token_id is not None:
            self.end = int(self._tokenizer.eos_token_id)
            self.notes.append(
                f"the chat template writes no end of a turn: answers end with "
                f"{self._tokenizer.eos_token}, which stays in the conversation"
            )
        else:
            raise TemplateError(
                "neither the chat template nor the tokenizer names an end token: set "
                "tokenizer.eos_token"
            )
        written = places[1] + len(_SAID) + len(self._trail) + len(self._end_text)
        self._history, self._shown = shown[:written], shown
        mark = _OPENING.fullmatch(self._extra)
        self.opened = self._extra.strip() if mark else ""
        self._closing = "" if not mark else f"</{mark[1]}>" if mark[1] else f"[/{mark[2]}]"

    def _end_of(self, tail: str, named: Sequence[int]) -> str:
        """The token with which a text begins, where it is one that can end a turn; ""."""
        known = {str(t.content) for t in self._tokenizer.added_tokens_decoder.values()}
        known |= set(self._tokenizer.all_special_tokens)
        known |= set(self._tokenizer.convert_ids_to_tokens(list(named)))
        found = [token for token in known if token and tail.startswith(token)]
        if found:
            return max(found, key=len)
        # A mark that is a token like any other.
        first = (self._inside(tail) or [-1])[0]
        token = "" if first < 0 else str(self._tokenizer.convert_ids_to_tokens(first))
        is_mark = len(token) > 2 and not token[0].isalnum() and not token[-1].isalnum()
        return token if is_mark and tail.startswith(token) else ""

    def _control_tokens(self) -> re.Pattern[str]:
        """The tokens that words must not hold: those that make a conversation one."""
        added = self._tokenizer.added_tokens_decoder.values()
        found = {
            str(token.content)
            for token in added
            if token.special or token.content in self._shown or _CONTROL.fullmatch(token.content)
        }
        found |= {*self._tokenizer.all_special_tokens, self._end_text}
        kept = [t for t in found if len(t.strip()) > 1 and not _MEANT.fullmatch(t)]
        pattern = "|".join(re.escape(t) for t in sorted(kept, key=lambda t: (-len(t), t)))
        return re.compile(pattern or r"(?!)")

    def _takes_system(self) -> bool:
        try:
            shown = self._render([Message("system", _SYSTEM), Message("user", _ASKED)])
        except Exception:
            return False
        return _SYSTEM in shown

    # -- the check ---------------------------------------------------------------------------------

    def _check(self) -> None:
        """Writes a short conversation piece by piece, and compares it with the whole.

        Raises:
            TemplateError: They differ, also with the system's words folded.
        """
        wrong = self._difference()
        if wrong and not self.folds:
            self.folds = True
            if not self._difference():
                self.notes.append(
                    "the template moves the system's words as a conversation grows: they stand in "
                    "the first user message"
                )
                return
            self.folds = False
        if wrong:
            raise TemplateError(
                f"the chat template cannot be written turn by turn: {wrong}. A conversation must "
                "grow at its end; give the tokenizer another chat template, or the template other "
                "options (template_options)"
            )

    def _difference(self) -> str:
        """Where pieces and whole differ in what they say; "" for nowhere."""
        system, *heard = (
            Message("system", "Rules of the game."),
            Message("user", "You see a desk 1.\n\nPossible commands:\nlook"),
            Message("user", "On the desk 1, you see a mug 2."),
            Message("user", "You pick up the mug 2."),
        )
        answers = ["<action>go to desk 1</action>", "take mug 2 from desk 1"]
        pieces = self.opening([system, heard[0]])
        turns = [system, heard[0]]
        for answer, message in zip(answers, heard[1:], strict=True):
            spoke = len(pieces)
            pieces += self.reply(f"<think>\nWhere is it?\n</think>\n\n{answer}")
            back, past = self.past(answer)
            pieces = pieces[: spoke - back]
            pieces += past if self._end_text else past[:-1]
            pieces += self.following([message])
            turns += [Message("assistant", answer), message]
        whole = self._encode(self._render(fold_system(turns) if self.folds else turns))
        if pieces == whole:
            return ""
        said, wanted = (
            str(self._tokenizer.decode(ids, clean_up_tokenization_spaces=False))
            for ids in (pieces, whole)
        )
        return _around(wanted, said) if said != wanted else ""


def _shared(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How long the beginning is that two sequences share."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _around(wanted: str, said: str) -> str:
    """Where two texts part, in words."""
    at = _shared(wanted, said)
    return f"after {wanted[max(0, at - 24) : at]!r} {said[at : at + 48]!r} stands for " + repr(
        wanted[at : at + 48]
    )
