"""What a generated game asks for: as data, as the PDDL goal, and as a sentence.

The six task types have the PDDL goals and the sentences of the official games. Two forms go beyond
them: a chained preparation ("clean and heat some mug and put it in cabinet") and two objects that
are prepared both; the original engine plays them as well, since a goal is only an expression.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from himac_envs.alfworld.problem import Expression

NEEDS = ("clean", "heat", "cool")
"""Preparations, in the order in which they are named; an object is either heated or cooled."""

APPLIANCE = {"clean": "SinkBasin", "heat": "Microwave", "cool": "Fridge"}
STATE = {"clean": "clean", "heat": "hot", "cool": "cool"}
_ABLE = {"clean": "cleanable", "heat": "heatable", "cool": "coolable"}
_IS = {"clean": "isclean", "heat": "ishot", "cool": "iscool"}
_NEED_OF = {
    "pick_clean_then_place_in_recep": "clean",
    "pick_heat_then_place_in_recep": "heat",
    "pick_cool_then_place_in_recep": "cool",
}


@dataclass(frozen=True)
class Goal:
    """One goal.

    Attributes:
        task_type: One of the six; with a chained preparation, the type it was made from.
        item: The object kind, e.g. "Mug".
        target: The receptacle kind, or the lamp kind of ``look_at_obj_in_light``.
        needs: The preparations, a part of `NEEDS` in that order.
    """

    task_type: str
    item: str
    target: str
    needs: tuple[str, ...] = ()

    @property
    def number(self) -> int:
        """How many objects the goal needs, 1 or 2."""
        return 2 if self.task_type == "pick_two_obj_and_place" else 1

    @property
    def light(self) -> bool:
        """Whether the object is to be looked at under a lamp, not placed."""
        return self.task_type == "look_at_obj_in_light"

    @property
    def original(self) -> bool:
        """Whether the official games have goals of this form."""
        return self.needs == original_needs(self.task_type)

    def expressions(self) -> tuple[Expression, ...]:
        """Return the conjuncts of the PDDL goal, as the official files write them."""
        item, target = f"{self.item}type".lower(), f"{self.target}type".lower()
        if self.light:
            lamp: Expression = (
                "exists",
                (
                    *("?ot", "-", "object", "?r", "-", "receptacle"),
                    *("?a", "-", "agent", "?l", "-", "location"),
                ),
                (
                    "and",
                    ("objecttype", "?ot", target),
                    ("toggleable", "?ot"),
                    ("istoggled", "?ot"),
                    ("receptacleatlocation", "?r", "?l"),
                    ("atlocation", "?a", "?l"),
                    ("inreceptacle", "?ot", "?r"),
                ),
            )
            held: Expression = (
                "exists",
                ("?o", "-", "object", "?a", "-", "agent"),
                ("and", ("objecttype", "?o", item), ("holds", "?a", "?o")),
            )
            return (lamp, held)

        def placed(name: str, *more: Expression) -> Expression:
            able = tuple((_ABLE[need], name) for need in self.needs)
            done = tuple((_IS[need], name) for need in self.needs)
            return (
                "and",
                *able,
                ("objecttype", name, item),
                ("receptacletype", "?r", target),
                *done,
                ("inreceptacle", name, "?r"),
                *more,
            )

        if self.number == 1:
            body: Expression = ("exists", ("?o", "-", "object"), placed("?o"))
        else:
            other = placed("?o2")
            different: Expression = ("not", ("=", "?o1", "?o2"))
            second: Expression = (
                "exists",
                ("?o2", "-", "object"),
                ("and", different, *other[1:]),
            )
            body = ("exists", ("?o1", "-", "object"), placed("?o1", second))
        return (("exists", ("?r", "-", "receptacle"), body),)

    def sentence(self, forms: Mapping[str, Sequence[str]], pick: int) -> str:
        """Return the goal in words, without a full stop.

        Args:
            forms: The sentences of the household.
            pick: Which of the forms, taken modulo their number.
        """
        key = self.task_type
        if not self.original:
            key = "prepare_two" if self.number == 2 else "prepare"
        form = forms[key][pick % len(forms[key])]
        return form.format(
            object=self.item.lower(),
            target=self.target.lower(),
            states=" and ".join(STATE[need] for need in self.needs),
            verbs=" and ".join(self.needs),
        )


def original_needs(task_type: str) -> tuple[str, ...]:
    """Return the preparations that a task type asks for in the official games."""
    return (_NEED_OF[task_type],) if task_type in _NEED_OF else ()


def whole_expression(goals: Sequence[Goal]) -> Expression:
    """Return the PDDL goal of a game: every goal at once."""
    return ("and", *(part for goal in goals for part in goal.expressions()))


_SEVERAL = "do all of this, in any order: "


def whole_sentence(sentences: Sequence[str]) -> str:
    """Return the instruction of a game with these goals' sentences, with its full stop."""
    if len(sentences) == 1:
        return sentences[0] + "."
    # Full stops: the original's grammar cuts a text off at a semicolon.
    return _SEVERAL + ". ".join(sentences) + "."


def split_sentences(instruction: str) -> tuple[str, ...]:
    """Return the goals' sentences of an instruction, the inverse of `whole_sentence`."""
    return tuple(instruction.removeprefix(_SEVERAL).removesuffix(".").split(". "))
