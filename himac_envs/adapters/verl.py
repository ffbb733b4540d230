r"""verl: the environments as an agent loop.

Install: ``pip install himac verl cachetools fastapi uvicorn`` (verl 0.9). Its tool form is
`himac_envs.adapters.verl_tools`.

Use: write the data set, then start verl with the loop's module named for its workers::

    import pandas
    from himac_envs.adapters.verl import rows

    pandas.DataFrame(rows("HiMAC-ALFWorld-v0", count=1_000)).to_parquet("train.parquet")

    VERL_USE_EXTERNAL_MODULES=himac_envs.adapters.verl python -m verl.trainer.main_ppo \
        data.train_files=train.parquet actor_rollout_ref.rollout.response_length=8192 ...

- One episode is one conversation and one `AgentLoopOutput`: the model's tokens have mask 1, those
  of the environment 0. Tokens are never decoded and encoded again.
- Blueprint, sub-goals, ``<sub_done>``: on a hierarchical id the first answer is the blueprint; from
  then on each message ends with the current sub-goal, and ``<sub_done>`` begins the next.
- Rewards: ``reward_score`` is the episode's return; ``extra_fields["turn_scores"]`` has the reward
  of each answer; success, score and steps go to verl's metrics as ``reward_extra_info``.
- Admissible commands: below each message with ``rows(..., list_admissible=True)``.
- Invalid text: an invalid command, answered as the benchmark does; it costs a step.
- After the end: the loop returns; nothing more is asked of the model.
- Pictures: not shown.
- Groups: each row has a ``task_id`` and verl repeats rows (``rollout.n``), so that members share
  their task. A row without one is refused, and one with an unknown task raises.
- Time limits: the environment's ``max_steps``; ``rollout.response_length`` tokens, after which the
  episode is left as it is, its last answer unplayed; ``rollout.multi_turn.max_assistant_turns``.
- Many at once: one coroutine an episode, the environment's steps in threads.
- Closing: each episode closes its environment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from himac_envs.adapters.errors import MissingStackError, NoTaskError
from himac_envs.adapters.rows import Row, read_kwargs, task_rows
from himac_envs.adapters.session import Session

INSTALL = "pip install verl cachetools fastapi uvicorn"
try:
    from verl.experimental.agent_loop.agent_loop import (
        AgentLoopBase,
        AgentLoopMetrics,
        AgentLoopOutput,
        register,
    )
except ImportError as error:
    raise MissingStackError("verl", INSTALL, error) from error

#: The ``agent_name`` of rows that the loop plays.
NAME = "himac"


@register(NAME)
class HiMACAgentLoop(AgentLoopBase):
    """Plays one row's episode: flat, or blueprint first and then sub-goal by sub-goal."""

    async def run(self, sampling_params: dict[str, Any], **row: Any) -> AgentLoopOutput:
        """Play the row's episode with the model behind verl's server.

        Args:
            sampling_params: For verl's server, as they are.
            **row: ``task_id``, ``env_id`` and ``env_kwargs`` (JSON or a mapping); ``raw_prompt``,
                the messages that the first observation is added to; ``priority``.

        Raises:
            NoTaskError: The row names no task.
            UnknownTaskError: The data does not hold it.
        """
        session = await asyncio.to_thread(open_session, row)
        try:
            return await self._play(session, sampling_params, row)
        finally:
            session.close()

    async def _play(
        self, session: Session, sampling_params: dict[str, Any], row: Mapping[str, Any]
    ) -> AgentLoopOutput:
        asked: dict[str, Any] = {"request_id": uuid4().hex, "sampling_params": sampling_params}
        if row.get("priority") is not None:
            asked["priority"] = int(row["priority"])
        most_tokens = int(self.rollout_config.response_length)
        most_turns = self._most_turns()
        messages = add_observation(row.get("raw_prompt", ()), session.text)
        ids = await self.ct_build_initial_tokens(messages)
        start = len(ids)
        mask: list[int] = []
        logprobs: list[float] | None = None
        scores: list[float] = []
        fields: dict[str, Any] = {}
        preempted, turns = -1, 0
        while True:
            said = await self.server_manager.generate(prompt_ids=ids, **asked)
            turns += 1
            fields.update(said.extra_fields)
            if said.num_preempted is not None:
                preempted = max(preempted, 0) + said.num_preempted
            if said.log_probs and logprobs is None:
                logprobs = [0.0] * len(mask)
            merged, mask, logprobs = await self.ct_merge_assistant_token(
                ids, said.token_ids, mask, logprobs, assistant_logprobs=said.log_probs or None
            )
            ids = merged.token_ids
            if len(mask) > most_tokens or (len(mask) == most_tokens and not self._ended(said)):
                break  # the answer may have been cut: it is not played
            answer = self.tokenizer.decode(said.token_ids, skip_special_tokens=True)
            text = await asyncio.to_thread(session.step, answer)
            scores.append(session.reward)
            if session.done or len(mask) == most_tokens or turns == most_turns:
                break
            before = [*messages, {"role": "assistant", "content": answer}]
            messages = [*before, {"role": "user", "content": text}]
            merged, longer, more = await self.ct_merge_context_msg(
                before, messages, ids, mask, logprobs
            )
            if len(longer) >= most_tokens:
                break
            ids, mask, logprobs = merged.token_ids, longer, more
        fields |= {
            "turn_scores": scores,
            "tool_rewards": [],
            "reward_extra_info": {
                "success": float(session.won),
                "progress": session.score,
                "steps": session.summary()["step"],
            },
        }
        return AgentLoopOutput(
            prompt_ids=ids[: len(ids) - len(mask)] if mask else ids[:start],
            response_ids=(ids[len(ids) - len(mask) :] if mask else [])[:most_tokens],
            response_mask=mask[:most_tokens],
            response_logprobs=None if logprobs is None else logprobs[:most_tokens],
            reward_score=session.episode_return,
            num_turns=2 * turns,
            metrics=AgentLoopMetrics(num_preempted=preempted),
            extra_fields=fields,
        )

    def _most_turns(self) -> int | None:
        turns = self.rollout_config.get("multi_turn", {}).get("max_assistant_turns")
        return int(turns) if turns else None

    def _ended(self, said: Any) -> bool:
        """Whether an answer ended by itself, and not at a limit of tokens."""
        return bool(said.token_ids) and said.token_ids[-1] == self.tokenizer.eos_token_id


def open_session(row: Mapping[str, Any], **settings: Any) -> Session:
    """Return a session that has begun a row's episode.

    Args:
        row: ``task_id``, ``env_id`` and ``env_kwargs``.
        **settings: For `Session`; the row's win.

    Raises:
        NoTaskError: The row names no task or no environment.
    """
    if row.get("task_id") is None or row.get("env_id") is None:
        raise NoTaskError("himac_envs.adapters.verl.rows")
    session = Session(str(row["env_id"]), **{**settings, **read_kwargs(row.get("env_kwargs"))})
    try:
        session.reset(str(row["task_id"]))
    except BaseException:
        session.close()
        raise
    return session


def add_observation(prompt: Sequence[Mapping[str, Any]], text: str) -> list[dict[str, Any]]:
    """Return a prompt's messages with the first observation, in the last one if a user says it."""
    messages = [dict(message) for message in prompt]
    if messages and messages[-1]["role"] == "user":
        before = str(messages.pop()["content"]).rstrip()
        text = f"{before}\n\n{text}" if before else text
    return [*messages, {"role": "user", "content": text}]


def rows(
    env_id: str, *, split: str = "train", count: int | None = None, seed: int = 0, **kwargs: Any
) -> list[Row]:
    """Return rows of a verl data set for the agent loop.

    Args:
        env_id: A flat or a hierarchical id.
        split: Of the tasks.
        count: How many, drawn without repetition; None is all, in their order.
        seed: Of the draw.
        **kwargs: For `Session` and the environment; they stand in each row, as JSON.
    """
    # The agent loop brings the reward; verl's data set wants these all the same.
    further = {"agent_name": NAME, "reward_model": {"style": "rule", "ground_truth": ""}}
    made = task_rows(env_id, further, split=split, count=count, seed=seed, **kwargs)
    return [{**r, "extra_info": {"index": i, "split": split}} for i, r in enumerate(made)]
