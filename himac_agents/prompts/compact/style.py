"""Few words, for small models trained from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from himac_agents.policies.base import Message
from himac_agents.prompts.base import Prompts
from himac_agents.prompts.compact.forms import Form
from himac_agents.prompts.compact.shop import ShopForm
from himac_agents.prompts.compact.warehouse import WarehouseForm
from himac_envs.blueprint import Blueprint
from himac_envs.reading import read_blueprint

_PLAIN, _GATHER = Form(), Form(gathers=True)
_SHOP, _WAREHOUSE = ShopForm(), WarehouseForm()


@dataclass(frozen=True, slots=True)
class CompactPrompts(Prompts):
    """Few words, for small models trained from scratch: a role token, the scene, the sub-goal.

    Each environment's text has a form of its own, recognised by how it looks: see
    `forms` (ALFWorld, and anything else), `shop` and `warehouse` beside this module.

    Attributes:
        remind: Repeat the sub-goal (flat: the instruction) after each observation, as a help for
            models that lose sight of it.
        mark: Put a star behind each numbered name in an observation ("mug 2 *") whose word stands
            in the sub-goal (flat: in the instruction) too. This is the exact-match feature of
            reading comprehension: a model of 0.2M parameters takes very long to learn by itself
            that two words are the same.
        gather: Instead of the stars, repeat those names behind the observation. Less text, and
            learned with far fewer demonstrations.
    """

    remind: bool = False
    mark: bool = True
    gather: bool = False

    def plan(self, first: str, goal: str) -> list[Message]:
        """See `Prompts.plan`."""
        form = self._form(first)
        return [Message("user", f"<plan> {form.scene(first)}\n{form.brief(goal)}")]

    def segment(
        self,
        first: str,
        subgoal: str,
        endings: Sequence[str],
        info: dict[str, Any] | None = None,
    ) -> list[Message]:
        """See `Prompts.segment`."""
        task = self._marked(subgoal)
        scene, *past = self._form(first).opening(first, task, endings, info or {})
        aim = self._form(first).aim(subgoal)
        return [Message("user", "\n".join([f"<act> {scene}", *past, aim]))]

    def proceed(self, text: str, subgoal: str, info: dict[str, Any]) -> Message:
        """See `Prompts.proceed`."""
        aim = self._form(text).aim(subgoal)
        return Message("user", f"{self._short(text, subgoal, info)}\n<act> {aim}")

    def play(self, first: str, goal: str, info: dict[str, Any] | None = None) -> list[Message]:
        """See `Prompts.play`."""
        form = self._form(first)
        return [Message("user", f"<play> {form.scene(first)}\n{form.task(goal)}")]

    def recall(
        self,
        first: str,
        goal: str,
        past: Sequence[tuple[str, str]],
        text: str,
        info: dict[str, Any],
    ) -> list[Message]:
        """See `Prompts.recall`."""
        form = self._form(first)
        lines = [f"<play> {form.scene(first)}", form.task(goal)]
        for seen, command in past:
            lines += [self._short(seen, goal, {}) if seen != first else "", f"> {command}"]
        if past:
            lines.append(self._short(text, goal, info))
        return [Message("user", "\n".join(line for line in lines if line))]

    def observe(self, text: str, task: str, info: dict[str, Any]) -> Message:
        """See `Prompts.observe`."""
        text = self._short(text, task, info)
        return Message("user", f"{text}\n{task}" if self.remind else text)

    def _short(self, text: str, task: str, info: dict[str, Any]) -> str:
        return self._form(text).observation(text, self._marked(task), info)

    def _marked(self, task: str) -> str:
        return task if self.mark or self.gather else ""

    def _form(self, text: str) -> Form:
        """The form that knows an observation."""
        forms = (_SHOP, _WAREHOUSE, _GATHER if self.gather else _PLAIN)
        return next(form for form in forms if form.knows(text))

    def draft(self, blueprint: Blueprint, first: str, goal: str) -> str:
        """See `Prompts.draft`."""
        return self.write_blueprint(self._form(first).shorten(blueprint, goal))

    def read_plan(self, answer: str, first: str, goal: str) -> Blueprint:
        """See `Prompts.read_plan`."""
        return self._form(first).expand(read_blueprint(answer, goal), goal)

    def commands(self, task: str, info: dict[str, Any]) -> Sequence[str]:
        """See `Prompts.commands`."""
        return _by_info(info).commands(task, info)

    def phrase(self, command: str, info: dict[str, Any]) -> str:
        """See `Prompts.phrase`."""
        return _by_info(info).phrase(command, info)

    def words(self, first: str) -> list[str]:
        """See `Prompts.words`."""
        return self._form(first).words()


def _by_info(info: dict[str, Any]) -> Form:
    # Only the shop says what can be clicked.
    return _SHOP if "available_actions" in info else _PLAIN
