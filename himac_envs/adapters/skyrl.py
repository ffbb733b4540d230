"""SkyRL: the environments as a `BaseTextEnv` of skyrl-gym.

Install: ``pip install himac skyrl-gym``.

Use, in the entry point's Ray task::

    import himac_envs.adapters.skyrl as himac  # registers "himac"

    rows = himac.rows("HiMAC-ALFWorld-v0", split="train", count=1_000)
    pandas.DataFrame(rows).to_parquet("train.parquet")  # data.train_data of SkyRL's config

- Blueprint, sub-goals, ``<sub_done>``: on a hierarchical id the first answer is the blueprint; from
  then on each message ends with the current sub-goal, and ``<sub_done>`` begins the next.
- Rewards: of the turn, as the environment's ``reward=`` has them; SkyRL adds them up.
- Admissible commands: below each message with ``rows(..., list_admissible=True)``.
- Invalid text: an invalid command, answered as the benchmark does; ``metadata["invalid"]`` is True
  and it costs a step.
- After the end: ``done`` again, with no reward and no message, and ``metadata["error"]``.
- Pictures: not shown; a `BaseTextEnv` has messages only.
- Groups: each row has a ``task_id`` and SkyRL repeats rows, so that members share their task. A row
  without one is refused.
- Time limits: the environment's ``max_steps``; ``max_turns``, which SkyRL passes on from its
  configuration, ends an episode too, as truncated: leave room for the blueprint and each
  ``<sub_done>`` (`Session.max_decisions`).
- Many at once: SkyRL makes one environment an episode. That takes 0.5 to 2 milliseconds once the
  first has loaded the data; a generated ALFWorld game is drawn for each, which takes 10.
- Closing: ``close()``, which SkyRL calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from himac_envs.adapters.errors import MissingStackError, NoTaskError
from himac_envs.adapters.rows import Row, read_kwargs, task_rows
from himac_envs.adapters.session import Session

try:
    import skyrl_gym
    from skyrl_gym.envs.base_text_env import BaseTextEnv, BaseTextEnvStepOutput
    from skyrl_gym.envs.registration import registry
except ImportError as error:
    raise MissingStackError("skyrl", "pip install skyrl-gym", error) from error

#: The name under which the environment is registered with skyrl-gym.
NAME = "himac"


class HiMACTextEnv(BaseTextEnv):
    """One episode, as SkyRL wants it.

    Args:
        env_config: ``env_id``, and keyword arguments of `Session` and the environment, for all
            rows.
        extras: The row: ``task_id``; ``env_id`` and ``env_kwargs``, which win over ``env_config``;
            ``max_turns``.

    Raises:
        NoTaskError: The row names no task.
        ValueError: Neither names an environment.
    """

    def __init__(
        self, env_config: Mapping[str, Any] | None = None, extras: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        extras = extras or {}
        settings = {**(env_config or {}), **read_kwargs(extras.get("env_kwargs"))}
        env_id = extras.get("env_id") or settings.get("env_id")
        settings.pop("env_id", None)
        if env_id is None:
            raise ValueError("the row names no env_id: himac_envs.adapters.skyrl.rows makes rows")
        self._task_id = extras.get("task_id")
        if self._task_id is None:
            raise NoTaskError("himac_envs.adapters.skyrl.rows")
        self.session = Session(str(env_id), **settings)
        self.max_turns = extras.get("max_turns") or self.session.max_decisions
        self._over = False

    def init(self, prompt: list[dict[str, str]]) -> tuple[list[dict[str, str]], dict[str, Any]]:
        """Begin the episode and return the first messages.

        Args:
            prompt: The row's; the first observation is added to it, to its last message where
                that is a user's.

        Raises:
            UnknownTaskError: The data does not hold the row's task.
        """
        text = self.session.reset(self._task_id)
        self.turns, self._over = 0, False
        messages = [dict(message) for message in prompt]
        if messages and messages[-1]["role"] == "user":
            before = messages.pop()["content"].rstrip()
            text = f"{before}\n\n{text}" if before else text
        return [*messages, {"role": "user", "content": text}], self.session.summary()

    def step(self, action: str) -> BaseTextEnvStepOutput:
        """Give one answer, as the model wrote it.

        Raises:
            EpisodeOverError: ``init`` was not called.
        """
        if self._over:
            what = {**self.session.summary(), "error": "the episode is over: init() begins one"}
            return BaseTextEnvStepOutput(observations=[], reward=0.0, done=True, metadata=what)
        text = self.session.step(action)
        self.turns += 1
        out_of_turns = self.max_turns is not None and self.turns >= self.max_turns
        self._over = self.session.done or out_of_turns
        what = self.session.summary()
        what["truncated"] = self._over and not self.session.terminated
        shown = [] if self._over else [{"role": "user", "content": text}]
        reward = self.session.reward
        return BaseTextEnvStepOutput(
            observations=shown, reward=reward, done=self._over, metadata=what
        )

    def get_metrics(self) -> dict[str, Any]:
        """Return numbers of the episode; SkyRL averages them."""
        return {
            "success": float(self.session.won),
            "score": self.session.score,
            "steps": self.session.summary()["step"],
        }

    def close(self) -> None:
        """Close the environment."""
        self.session.close()


def rows(
    env_id: str, *, split: str = "train", count: int | None = None, seed: int = 0, **kwargs: Any
) -> list[Row]:
    """Return rows of a SkyRL data set: prompt, env_class, env_id, env_kwargs and task_id.

    Args:
        env_id: A flat or a hierarchical id.
        split: Of the tasks.
        count: How many, drawn without repetition; None is all, in their order.
        seed: Of the draw.
        **kwargs: For `Session` and the environment; they stand in each row, as JSON.
    """
    further = {"env_class": NAME}
    return task_rows(env_id, further, split=split, count=count, seed=seed, **kwargs)


def register() -> None:
    """Register the environment with skyrl-gym, once; each Ray worker does so for itself."""
    if NAME not in registry:
        skyrl_gym.register(NAME, "himac_envs.adapters.skyrl:HiMACTextEnv")


register()
