r"""HiMAC on verl: its episodes as an agent loop, its credit by a trainer of its own.

Install: ``pip install 'himac[agents]' 'verl[vllm]'`` (verl 0.9, with its TransferQueue)

Use: write the settings and a data set, then start verl with both modules named::

    import pandas
    from himac_agents import TrainConfig
    from himac_agents.adapters.verl import rows

    settings = TrainConfig(
        method="himac", env="HiMAC-ALFWorld-v0", policy="hf", constrained=False, kl=0.0
    )
    open("himac.toml", "w").write(settings.to_toml())
    pandas.DataFrame(rows(settings, count=1_000)).to_parquet("train.parquet")

    export VERL_USE_EXTERNAL_MODULES=himac_agents.adapters.verl,himac_agents.adapters.verl_trainer
    python -m verl.trainer.main_ppo +himac.settings=$PWD/himac.toml \
        trainer.v1.trainer_mode=himac data.train_files=train.parquet \
        data.train_batch_size=16 actor_rollout_ref.rollout.n=1 algorithm.adv_estimator=grpo ...

What is whose:

- HiMAC's: the episodes (planner, executor, ``<sub_done>``), what is played in which phase, which
  tokens carry which advantage. One model plays all roles.
- verl's: the model, its servers, the sharding, the optimiser and the loss (``clip_ratio``,
  ``loss_agg_mode``, ``use_kl_loss``), checkpoints, logging. Its estimator (``adv_estimator``) and
  its groups (``rollout.n``) are not used.
- The loop plays one job and returns one output a segment: the planner's conversation, and the
  executor's on each sub-goal. Tokens are never decoded and encoded again.
- `himac_agents.adapters.verl_trainer` says which jobs, and learns from what comes back.

A row of the data set that nobody made a job of (verl's validation, or another trainer) is played as
a whole episode; its return is the reward of each of its segments.
"""

from __future__ import annotations

import asyncio
import json
import threading
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from himac_agents.adapters.away import (
    Stage,
    Tokens,
    job_from_json,
    settings_from,
    settings_to_text,
    tokens_of,
)
from himac_agents.adapters.handover import checked, insist_on_one_temperature
from himac_agents.algorithms.methods import method_of
from himac_agents.config import TrainConfig
from himac_agents.rollouts import serial
from himac_agents.rollouts.pool import Job, make_pool
from himac_agents.rollouts.types import Episode, EpisodeRequest
from himac_envs.adapters.errors import MissingStackError

INSTALL = "pip install 'himac[agents]' 'verl[vllm]'"
try:
    from verl.experimental.agent_loop.agent_loop import (
        AgentLoopBase,
        AgentLoopMetrics,
        AgentLoopOutput,
        register,
    )
except ImportError as error:
    raise MissingStackError("verl", INSTALL, error, __package__) from error

#: The ``agent_name`` of rows that the loop plays.
NAME = "himac-agents"
#: Where the settings stand in verl's, as the trainer writes them for its workers.
_TEXT = "text"
_KL = "verl computes a penalty of its own: actor_rollout_ref.actor.use_kl_loss=True"
_LOCK = threading.Lock()


@register(NAME)
class HiMACMethodLoop(AgentLoopBase):
    """Plays one job and returns its segments; see the module's text."""

    async def run(self, sampling_params: dict[str, Any], **row: Any) -> list[AgentLoopOutput]:
        """Plays the row's job with the model behind verl's server.

        Args:
            sampling_params: For verl's server. Temperature, length, seed and ends are the job's;
                nothing else narrows what is drawn from.
            **row: ``himac``, a job; without it ``task_id``, which is played as a whole episode.

        Raises:
            ValueError: The row names no task, or an output is longer than verl allows.
        """
        settings = settings_in(self.config)
        text = settings_to_text(settings)
        stage = await asyncio.to_thread(stage_for, text, self.tokenizer)
        job = _job(row, settings, float(sampling_params.get("temperature", 1.0)))
        further: dict[str, Any] = {}
        plain = {"top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0}
        name = uuid4().hex

        async def ask(ids: Any, how: dict[str, Any]) -> tuple[list[int], list[float]]:
            params = {**sampling_params, **plain, **how}
            said = await self.server_manager.generate(
                name, prompt_ids=list(ids), sampling_params=params
            )
            further.update(said.extra_fields)
            return list(said.token_ids), list(said.log_probs or ())

        episode = await stage.play(job, ask)
        if not further:
            # Nobody was asked: the weights are those of now.
            steps = int(row.get("global_steps", 0))
            further = {"min_global_steps": steps, "max_global_steps": steps}
        return self._outputs(episode, further)

    def _outputs(self, episode: Episode, further: dict[str, Any]) -> list[AgentLoopOutput]:
        """A segment's sequences, segment by segment; the first brings the whole record."""
        sequences = [one for segment in episode.segments for one in tokens_of(segment)]
        # What was not written by anybody is one token that carries nothing.
        blank = Tokens([self._end], [self._end], [0], [0.0], [0.0])
        record = json.dumps(serial.to_json(episode))
        told = {
            "success": float(episode.success),
            "progress": episode.score,
            "steps": episode.steps,
        }
        found = []
        for number, one in enumerate(sequences or [blank]):
            self._insist(one)
            fields = {**further, "himac": record if number == 0 else ""}
            fields |= {"turn_scores": [], "tool_rewards": [], "reward_extra_info": dict(told)}
            output = AgentLoopOutput(
                prompt_ids=one.prompt_ids,
                response_ids=one.response_ids,
                response_mask=one.mask,
                response_logprobs=one.logprobs,
                reward_score=episode.reward,
                num_turns=2,
                metrics=AgentLoopMetrics(),
                extra_fields=fields,
            )
            found.append(output)
        return found

    @property
    def _end(self) -> int:
        return int(self.tokenizer.eos_token_id)

    def _insist(self, one: Tokens) -> None:
        """Refuses what verl would not take."""
        for name, ids in (("prompt", one.prompt_ids), ("response", one.response_ids)):
            limit = int(self.rollout_config[f"{name}_length"])
            if len(ids) > limit:
                raise ValueError(
                    f"a {name} of {len(ids):,} tokens: data.max_{name}_length={limit} is too short "
                    "for a segment; raise it, or show the agent fewer steps (history)"
                )


def _job(row: dict[str, Any], settings: TrainConfig, temperature: float) -> Job:
    if row.get("himac"):
        return job_from_json(str(row["himac"]))
    if row.get("task_id") is None:
        raise ValueError(
            "the row names no task_id: himac_agents.adapters.verl.rows(settings) makes rows that do"
        )
    number = int(row.get("session_id", 0))
    request = EpisodeRequest(str(row["task_id"]), number=number)
    return Job(request, seed=settings.seed, plans=temperature, acts=temperature)


@cache
def _stage(text: str, tokenizer: Any) -> Stage:
    return Stage(settings_from(text), tokenizer)


def stage_for(text: str, tokenizer: Any) -> Stage:
    """A process's environments and prompts for some settings; they are made once."""
    with _LOCK:
        return _stage(text, tokenizer)


def settings_in(config: Any) -> TrainConfig:
    """HiMAC's settings in verl's configuration, as they are run.

    Raises:
        ValueError: There are none, or verl cannot do what they ask for.
    """
    held = config.get("himac") or {}
    if held.get(_TEXT):
        return settings_from(str(held[_TEXT]))
    path = held.get("settings")
    if not path or not Path(str(path)).is_file():
        raise ValueError(
            f"himac.settings={path!r}: the file of HiMAC's settings is named with "
            "+himac.settings=FILE.toml"
        )
    settings = checked(TrainConfig.from_toml(str(path)), "verl", _KL)
    theirs = float(config.actor_rollout_ref.rollout.temperature)
    insist_on_one_temperature(settings, theirs, "verl")
    return settings


def rows(
    settings: TrainConfig, *, split: str = "train", count: int | None = None
) -> list[dict[str, Any]]:
    """Rows of a verl data set: the tasks of a split, in their order.

    Args:
        settings: HiMAC's.
        split: Of the tasks.
        count: The first so many; None: all.
    """
    method = method_of(settings)
    flat = not method.hierarchical
    pool = make_pool(settings, flat=flat, sub_done=method.sub_done)
    env_id = settings.env_id(flat=flat)
    return [
        {
            # The loop writes the conversation; verl's data set wants these all the same.
            "prompt": [{"role": "user", "content": task_id}],
            "data_source": env_id,
            "reward_model": {"style": "rule", "ground_truth": ""},
            "extra_info": {"index": index, "split": split},
            "agent_name": NAME,
            "task_id": task_id,
        }
        for index, task_id in enumerate(list(pool.task_ids(split))[:count])
    ]
