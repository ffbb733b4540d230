"""The batch of episodes that verl-agent's rollout loop drives."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from himac_envs.adapters.errors import EpisodeOverError
from himac_envs.adapters.session import Session
from himac_envs.adapters.verl_agent.answers import project
from himac_envs.adapters.verl_agent.prompt import (
    ASK,
    ASK_BLUEPRINT,
    Templates,
    remembered,
    write_prompt,
)
from himac_envs.blueprint import SUB_DONE
from himac_envs.registry import benchmark_of
from himac_envs.wording import offered, wording

#: What winning a task is worth.
WIN = 10.0

Observations = dict[str, Any]
Infos = list[dict[str, Any]]


class EnvironmentManager:
    """A batch of episodes, as verl-agent's rollout loop drives it.

    Args:
        env_id: A flat or a hierarchical id, or another name of `himac_envs.registry.find_id`.
        groups: How many tasks are played at once.
        group_size: Lanes that play one task.
        seed: Draws the tasks.
        split: Where they are drawn from.
        history: Steps that a prompt remembers.
        templates: Prompts of one's own, of flat ids; None: ours.
        **kwargs: For the environment.
    """

    def __init__(
        self,
        env_id: str,
        *,
        groups: int,
        group_size: int = 1,
        seed: int = 0,
        split: str = "train",
        history: int = 2,
        templates: Templates | None = None,
        **kwargs: Any,
    ) -> None:
        if groups < 1 or group_size < 1:
            raise ValueError(f"groups={groups}, group_size={group_size}: at least one lane")
        if history < 0:
            raise ValueError(f"history={history}: 0 or more steps are remembered")
        self.scale = 1.0 if "reward" in kwargs else WIN
        settings = {"reward": "sparse", **kwargs, "split": split}
        self.sessions = [Session(env_id, **settings) for _ in range(groups * group_size)]
        self.group_size = group_size
        self.history = history
        self.templates = templates
        self.benchmark = benchmark_of(env_id)
        self._tasks = self.sessions[0].task_ids(split)
        self._rng = np.random.default_rng(seed)
        self._past: list[list[tuple[str, str]]] = [[] for _ in self.sessions]
        self._valid = [True] * len(self.sessions)
        self._begun = False

    def __len__(self) -> int:
        """How many lanes there are."""
        return len(self.sessions)

    # ---- verl-agent's three methods --------------------------------------------------------------
    def reset(self, kwargs: Sequence[Any] | None = None) -> tuple[Observations, Infos]:
        """Begin an episode in each lane.

        Args:
            kwargs: One mapping a lane; its ``task_id``, where it has one, is the lane's task.

        Returns:
            ``{"text", "image", "anchor"}``, one entry a lane, and the infos.

        Raises:
            ValueError: Not one mapping a lane, or the lanes of a group name different tasks.
            UnknownTaskError: The data does not hold a task.
        """
        self._begun = False
        for session, task_id in zip(self.sessions, self._choose(kwargs), strict=True):
            session.reset(task_id)
        self._past = [[] for _ in self.sessions]
        self._valid = [True] * len(self)
        self._begun = True
        return self._observe(), self._infos()

    def step(
        self, text_actions: Sequence[str]
    ) -> tuple[Observations, NDArray[np.float32], NDArray[np.bool_], Infos]:
        """Play one answer in each lane.

        Args:
            text_actions: What the model wrote, one answer a lane.

        Returns:
            Observations; rewards, float32 [lanes]; whether each lane is done, bool [lanes]; infos
            with ``is_action_valid``.

        Raises:
            ValueError: Not one answer a lane.
            EpisodeOverError: ``reset`` was not called.
        """
        if not self._begun:
            raise EpisodeOverError(begun=False)
        if len(text_actions) != len(self):
            raise ValueError(f"{len(text_actions)} answers for {len(self)} lanes")
        rewards = np.zeros(len(self), dtype=np.float32)
        for lane, (session, answer) in enumerate(zip(self.sessions, text_actions, strict=True)):
            if session.done:
                continue
            action, self._valid[lane] = project(
                answer, self.benchmark, planning=session.planning, goal=session.goal
            )
            seen, planning = self._seen(session), session.planning
            if planning:
                session.write_blueprint(action)
            elif action == SUB_DONE and session.hierarchical:
                session.sub_done()
            else:
                session.play(action)
            if not planning:
                self._past[lane].append((seen, action))
            rewards[lane] = self.scale * session.reward
        done = np.array([session.done for session in self.sessions], dtype=np.bool_)
        return self._observe(), rewards, done, self._infos()

    def success_evaluator(
        self, *, total_infos: Sequence[Infos], total_batch_list: Sequence[Any], **_: Any
    ) -> dict[str, NDArray[Any]]:
        """Return what verl-agent logs of a batch of episodes.

        Args:
            total_infos: For each lane, the info of each step.
            total_batch_list: For each lane, the rows of each step; ``active_masks`` tells whether
                the lane was still playing.

        Returns:
            ``success_rate`` and ``task_score`` (WebShop's under verl-agent's own name), one entry a
            lane; and ``<type>_success_rate``, one entry for each lane whose task is of that type.
        """
        found: dict[str, list[float]] = defaultdict(list)
        for rows, infos in zip(total_batch_list, total_infos, strict=True):
            active = [i for i, row in enumerate(rows) if row["active_masks"]]
            info = infos[active[-1] if active else 0]
            won = float(info["won"])
            found["success_rate"].append(won)
            shop = self.benchmark == "webshop"
            name = "webshop_task_score (not success_rate)" if shop else "task_score"
            found[name].append(float(info["score"]))
            if info["task_type"]:
                found[f"{info['task_type']}_success_rate"].append(won)
        return {key: np.array(values) for key, values in found.items()}

    def close(self) -> None:
        """Close every lane's environment."""
        for session in self.sessions:
            session.close()

    # ---- how it is done --------------------------------------------------------------------------
    def _choose(self, kwargs: Sequence[Any] | None) -> list[str]:
        named: list[Any] = [None] * len(self)
        if kwargs is not None:
            if len(kwargs) != len(self):
                raise ValueError(f"{len(kwargs)} rows for {len(self)} lanes")
            named = [row.get("task_id") if isinstance(row, Mapping) else None for row in kwargs]
        chosen = []
        for start in range(0, len(self), self.group_size):
            wanted = set(named[start : start + self.group_size])
            if len(wanted) > 1:
                raise ValueError(f"lanes {start} and on are one group, with tasks {wanted}")
            # A draw is taken in any case, so that naming tasks moves none of the others.
            drawn = self._tasks[int(self._rng.integers(len(self._tasks)))]
            task_id = wanted.pop()
            chosen += [drawn if task_id is None else str(task_id)] * self.group_size
        return chosen

    def _seen(self, session: Session) -> str:
        return "<image>" if session.image is not None else str(session.observation["text"])

    def _observe(self) -> Observations:
        images = [session.image for session in self.sessions]
        shown = [image for image in images if image is not None]
        anchors = []
        for session in self.sessions:
            text = str(session.observation["text"])
            anchors.append(f"{text}\n{session.subgoal}" if session.subgoal else text)
        return {
            "text": [self._prompt(lane) for lane in range(len(self))],
            "image": np.stack(shown) if len(shown) == len(images) else None,
            "anchor": anchors,
        }

    def _prompt(self, lane: int) -> str:
        session = self.sessions[lane]
        past = self._past[lane][len(self._past[lane]) - self.history :] if self.history else []
        commands = [command for command in offered(session.info) if command != "help"]
        taken = len(self._past[lane])
        if self.templates is not None and not session.hierarchical:
            listed = "\n ".join(f"'{command}'" for command in commands)
            return (self.templates.later if past else self.templates.first).format(
                task_description=session.goal,
                current_observation=self._seen(session),
                admissible_actions=listed,
                available_actions=listed,
                step_count=taken,
                history_length=len(past),
                action_history="\n".join(remembered(past, taken)),
                current_step=taken + 1,
            )
        return write_prompt(
            wording(self.benchmark).world,
            session.goal,
            past,
            self._seen(session),
            commands,
            taken,
            subgoal=session.subgoal,
            ask=f"{ASK_BLUEPRINT} {self._subgoals()}" if session.planning else ASK,
        )

    def _subgoals(self) -> str:
        return wording(self.benchmark).subgoals

    def _infos(self) -> Infos:
        infos = []
        for session, valid in zip(self.sessions, self._valid, strict=True):
            env: Any = session.env.unwrapped
            infos.append(
                {
                    **session.info,
                    "is_action_valid": np.array(valid),
                    "task_type": getattr(env, "task_type", ""),
                }
            )
        return infos
