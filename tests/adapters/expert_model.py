"""An expert in the form of a chat model: it answers a conversation by playing it again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from chat_server import Reply

from himac_envs.adapters import Session


class ExpertModel:
    """Knows some tasks, and says in each conversation about one what an expert would say next.

    It holds no state of conversations, so that it may be asked in any order, by any number.

    Args:
        env_id: The environment that is played.
        task_ids: The tasks that may come.
        **kwargs: As the environment is made.
    """

    def __init__(self, env_id: str, task_ids: Iterable[str], **kwargs: Any) -> None:
        self._session = Session(env_id, **kwargs)
        self._openings: dict[str, tuple[str, str | None]] = {}
        for task_id in task_ids:
            self._openings[self._session.reset(task_id)] = (task_id, None)
            if self._session.planning:
                # A conversation of who acts only begins after the blueprint.
                plan = self._session.expert()
                self._openings[self._session.step(plan)] = (task_id, plan)

    def answer(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Return the answer to a conversation in OpenAI's form."""
        talk = [m for m in messages if m["role"] in ("user", "assistant")]
        opening = text_of(talk[0])
        task_id, plan = next(v for k, v in self._openings.items() if k in opening)
        session = self._session
        session.reset(task_id)
        if plan is not None:
            session.step(plan)
        for message in talk:
            if message["role"] == "assistant":
                # The expert goes along: it knows from its own steps which box a sub-goal means.
                session.expert()
                session.step(text_of(message))
        return session.expert()

    def reply(self, request: Mapping[str, Any]) -> Reply:
        """Return the answer to a request of the chat completions API."""
        return completion(self.answer(request["messages"]))


def text_of(message: Mapping[str, Any]) -> str:
    """Return a message's text, whichever of the two forms it has."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def completion(text: str) -> Reply:
    """Return a whole answer of the chat completions API, as strict clients read it."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": "stop",
    }
    return Reply(
        {
            "id": "answer",
            "object": "chat.completion",
            "created": 0,
            "model": "expert",
            "choices": [choice],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        },
        headers={"content-type": "application/json"},
    )
