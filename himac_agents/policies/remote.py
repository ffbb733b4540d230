"""Any model behind an OpenAI-compatible endpoint: hosted, or served by vLLM, SGLang, llama.cpp, ...

For evaluation: such a model gives text, neither token ids nor log-probabilities, and cannot be
trained here. What can go wrong on the way is told apart:

- a busy server (429, 408, 409, 425, 5xx), a time-out, a cut connection, an answer that cannot be
  decoded, is no JSON or holds no choices: asked again after a growing pause, or after the one that
  the server names;
- a request that finally fails, is refused (other 4xx) or would exceed the cost limit: its episode
  ends with `Completion.error` and is counted as an error; the other episodes go on;
- a wrong key, model or address (401, 403, 404, or a server that was never reached): `APIError`,
  since no episode could go on.

A server whose model knows no system role says so in many ways; where a refusal may mean that, the
request is made once more with the system's words at the head of the first user message, and once
that was answered all later ones are made so.

An answer without words (`content` null) is an empty answer: an invalid command, or the blueprint
that is the task itself. Thoughts that the server keeps apart (`reasoning_content`) are not read.
"""

from __future__ import annotations

import asyncio
import base64
import io
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, TypeGuard

import numpy as np

from himac_agents.policies.base import Completion, Message, Prompt, Sampling, fold_system
from himac_agents.policies.endpoint import Endpoint
from himac_envs.errors import HiMACError, MissingDependencyError

#: How often a server that has never answered is called.
_GREETINGS = 3
_BUSY = (408, 409, 425, 429)
#: Words with which servers refuse a system role, by how sure a status makes it.
_ROLE = re.compile(
    r"system.{0,40}(?:role|message|prompt|instruction)|role.{0,60}system|alternat|jinja"
    r"|developer instruction",
    re.IGNORECASE | re.DOTALL,
)
_MAYBE_ROLE = re.compile(r"\bsystem\b|\broles?\b|template", re.IGNORECASE)
_HOPELESS = {
    401: "the server refused the key: set the environment variable {key}",
    403: "the server refused access with the key in {key}",
    404: "the server knows no such address or model",
}


class APIError(HiMACError):
    """The endpoint cannot be used at all: a wrong key, model or address."""


@dataclass
class Usage:
    """What was asked of an endpoint.

    Attributes:
        answers: Requests that were answered.
        retries: Requests that were repeated.
        failed: Requests that finally failed.
        tokens_in: Tokens read, as the server counts them.
        tokens_out: Tokens written, likewise.
        estimated: Answers without a count: four characters were taken for a token.
        cut: Answers that ended at the token limit.
        cost: Dollars.
    """

    answers: int = 0
    retries: int = 0
    failed: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    estimated: int = 0
    cut: int = 0
    cost: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The counts as JSON values."""
        return {**vars(self), "cost": round(self.cost, 6)}


class _Refused(Exception):
    """An attempt that failed.

    Attributes:
        again: Whether there is sense in another attempt.
        wait: The pause that the server asked for in seconds; None: it said nothing.
        met: Whether the server was reached at all.
        role: Whether it may have been the system's role that was refused.
    """

    def __init__(
        self,
        why: str,
        *,
        again: bool = True,
        wait: float | None = None,
        met: bool = True,
        role: bool = False,
    ) -> None:
        super().__init__(why)
        self.again, self.wait, self.met, self.role = again, wait, met, role


def _close(threads: ThreadPoolExecutor, client: Any) -> None:
    threads.shutdown(wait=False, cancel_futures=True)
    client.close()


class APIPolicy:
    """A remote model as a policy; see the module's text.

    Requests run at the same time, in threads. Each has a seed of its own, made from the key of the
    answer's noise, so that servers that honour seeds answer alike in every run.

    Args:
        endpoint: Where and how.
        seed: Seeds the pauses between attempts.
        sleep: Waits so many seconds.
        clock: Tells the time in seconds since 1970.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        seed: int = 0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        try:
            import httpx
        except ImportError as error:
            raise MissingDependencyError("httpx", "a remote model", "api") from error
        self.endpoint, self.name, self.usage = endpoint, endpoint.model, Usage()
        self._key = key = os.environ.get(endpoint.key_env, "")
        self._client = httpx.Client(
            timeout=endpoint.timeout,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            limits=httpx.Limits(max_connections=endpoint.concurrency),
        )
        self._sleep, self._clock = sleep, clock
        self._lock = threading.Lock()
        self._fatal: APIError | None = None
        #: Whether the server's model is known to take no system role.
        self._folds = False
        #: Called with the counts after each answer.
        self.watch: Callable[[Usage], None] | None = None
        self._rng = np.random.default_rng(seed)
        self._threads = ThreadPoolExecutor(endpoint.concurrency, "himac requests")
        self._finalizer = weakref.finalize(self, _close, self._threads, self._client)

    def close(self) -> None:
        """Closes the connections, as forgetting the policy does."""
        self._finalizer()

    async def sample(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """See `Policy.sample`.

        Raises:
            APIError: The endpoint cannot be used at all.
        """
        body = self._body(sampling, prompt.noise)
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, self._answer, prompt.messages, body)
        if self.watch is not None:
            self.watch(self.usage)
        return found

    # -- one request -----------------------------------------------------------------------------

    def _body(self, sampling: Sampling, noise: int) -> dict[str, Any]:
        """A request without its messages."""
        body = {
            "model": self.endpoint.model,
            "temperature": sampling.temperature,
            "max_tokens": sampling.max_tokens,
            "seed": noise % 2**31,
            **self.endpoint.options,
        }
        return {name: value for name, value in body.items() if value is not None}

    def _answer(self, messages: Sequence[Message], body: dict[str, Any]) -> Completion:
        """The answer to a request, or a completion that says why there is none."""
        for attempt in range(self.endpoint.retries + 1):
            if self._fatal is not None:
                raise self._fatal
            if self._spent():
                why = f"the cost limit of ${self.endpoint.max_cost:g} is reached"
                return self._failed(why)
            try:
                return self._either_way(messages, body)
            except _Refused as refused:
                pause = self._pause(attempt, refused)
                calls = min(_GREETINGS, self.endpoint.retries + 1)
                if not refused.met and self.usage.answers == 0 and attempt + 1 >= calls:
                    raise self._hopeless(f"{refused}: is the server running?") from refused
                if pause is None or attempt == self.endpoint.retries:
                    return self._failed(f"{refused} (attempt {attempt + 1})")
                with self._lock:
                    self.usage.retries += 1
                self._sleep(pause)
        raise AssertionError("unreachable: the last attempt returns")

    def _either_way(self, messages: Sequence[Message], body: dict[str, Any]) -> Completion:
        """An attempt; where that may help, another without a system role."""
        folded = fold_system(messages)
        if self._folds or len(folded) == len(messages):
            return self._attempt(folded, body)
        try:
            return self._attempt(messages, body)
        except _Refused as refused:
            if not refused.role:
                raise
            try:
                found = self._attempt(folded, body)
            except _Refused:
                raise refused from None
            self._folds = True
            return found

    def _attempt(self, messages: Sequence[Message], body: dict[str, Any]) -> Completion:
        import httpx

        written = [{"role": m.role, "content": _content(m)} for m in messages]
        try:
            response = self._client.post(self.endpoint.url, json={**body, "messages": written})
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise self._hopeless(f"{self.endpoint.url!r} is not an address: {error}") from error
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise _Refused(f"cannot connect to {self.endpoint.url}", met=False) from error
        except httpx.TimeoutException as error:
            raise _Refused(f"no answer within {self.endpoint.timeout:g} s") from error
        except httpx.DecodingError as error:
            raise _Refused(f"the answer cannot be decoded: {error}") from error
        except httpx.RequestError as error:
            raise _Refused(f"the connection was cut ({type(error).__name__})") from error
        status = response.status_code
        try:
            content = response.json()
        except (ValueError, RecursionError):
            content = None
        if status in _HOPELESS:
            hint = _HOPELESS[status].format(key=self.endpoint.key_env)
            said = self._said(content, response.text)
            raise self._hopeless(f"{self.endpoint.url} answers {status}: {hint} ({said})")
        if status != 200:
            again = status in _BUSY or status >= 500
            why = f"the server answers {status}: {self._said(content, response.text)}"
            words = response.text[:4000]
            role = _ROLE.search(words) is not None and status not in _BUSY
            role = role or (status in (400, 422) and _MAYBE_ROLE.search(words) is not None)
            raise _Refused(why, again=again, wait=self._asked_pause(response.headers), role=role)
        return self._read(content, response.text, messages)

    def _read(self, content: Any, raw: str, messages: Sequence[Message]) -> Completion:
        """Understands a 200."""
        if not isinstance(content, dict):
            raise _Refused(f"the answer is not a JSON object: {self._said(None, raw)}")
        choices = content.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise _Refused(f"the answer holds no choices: {self._said(content, raw)}")
        message = choices[0].get("message")
        if not isinstance(message, dict):
            raise _Refused(f"the answer's choice holds no message: {self._said(content, raw)}")
        text = _text(message.get("content"))
        usage = content.get("usage")
        counts = usage if isinstance(usage, dict) else {}
        read, written = counts.get("prompt_tokens"), counts.get("completion_tokens")
        known = True
        if not (_is_count(read) and _is_count(written)):
            known = False
            read, written = sum(len(m.text) for m in messages) // 4, -(-len(text) // 4)
        cut = choices[0].get("finish_reason") == "length"
        with self._lock:
            self.usage.answers += 1
            self.usage.tokens_in += read
            self.usage.tokens_out += written
            self.usage.estimated += not known
            self.usage.cut += cut
            paid = read * self.endpoint.price_in + written * self.endpoint.price_out
            self.usage.cost += paid / 1e6
        return Completion(text, written=written, cut=cut)

    # -- failures --------------------------------------------------------------------------------

    def _failed(self, why: str) -> Completion:
        with self._lock:
            self.usage.failed += 1
        return Completion("", written=0, error=f"{self.name}: {why}")

    def _hopeless(self, why: str) -> APIError:
        self._fatal = APIError(why)
        return self._fatal

    def _spent(self) -> bool:
        most = self.endpoint.max_cost
        with self._lock:
            return most is not None and self.usage.cost >= most

    def _pause(self, attempt: int, refused: _Refused) -> float | None:
        """Seconds until the next attempt; None: there is no sense in one."""
        if not refused.again:
            return None
        most = self.endpoint.max_wait
        if refused.wait is not None:
            return refused.wait if refused.wait <= most else None
        with self._lock:
            share = 1.0 - 0.5 * float(self._rng.random())
        return float(min(most, self.endpoint.backoff * 2.0**attempt) * share)

    def _asked_pause(self, headers: Mapping[str, str]) -> float | None:
        """Seconds that a `Retry-After` asks for, given as a number or as a date."""
        value = headers.get("retry-after")
        if value is None:
            return None
        try:
            return max(0.0, float(value))
        except ValueError:
            pass
        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - self._clock())
        except ValueError:
            return None

    def _said(self, content: Any, raw: str) -> str:
        """What the server says of an error, in one short line without the key."""
        error = content.get("error") if isinstance(content, dict) else None
        if isinstance(error, dict):
            error = error.get("message")
        line = " ".join(str(error or raw or "nothing").split())[:200]
        return line.replace(self._key, "***") if self._key else line


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _text(content: Any) -> str:
    """A message's content as text: a string, a list of parts, or nothing."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [p.get("text") for p in content if isinstance(p, dict) and p.get("type") == "text"]
        return "".join(part for part in parts if isinstance(part, str))
    return ""


def _content(message: Message) -> Any:
    """A message as a request writes it: text, or text and pictures."""
    # A lone surrogate, which a model's answer may hold, cannot be sent.
    text = message.text.encode("utf-8", "replace").decode("utf-8")
    if not message.images:
        return text
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}]
    for image in message.images:
        parts.append({"type": "image_url", "image_url": {"url": _data_url(image)}})
    return parts


def _data_url(image: Any) -> str:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependencyError("pillow", "sending pictures", "sokoban") from error
    file = io.BytesIO()
    Image.fromarray(np.asarray(image, dtype=np.uint8)).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
