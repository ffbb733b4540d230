"""BALROG: the three benchmarks beside its games, for its agents and its evaluator.

Install: BALROG from its repository (``pip install git+https://github.com/balrog-ai/BALROG``; the
package of that name on PyPI is another). Use, before BALROG's ``eval.py`` does its work::

    import balrog.evaluator
    from himac_envs.adapters.balrog import make_env

    balrog.evaluator.make_env = make_env(balrog.evaluator.make_env)

and in its configuration ``envs.names: alfworld-sokoban``, ``tasks.alfworld_tasks: [valid_seen]``
and ``eval.num_episodes.alfworld: 10``. An environment is called alfworld, webshop or sokoban; a
task is a split, of which the seed draws, or the id of one task.

- Blueprint, sub-goals, ``<sub_done>``: BALROG has one agent and one command a step. Call the
  environment alfworld_hierarchical and the like: the first answer is the blueprint.
- Rewards: as the environment has them. ``get_stats()["progression"]``, which BALROG reports, is the
  benchmark's score.
- Admissible commands: in ``short_term_context``, which BALROG shows with the present observation
  only.
- Invalid text: thoughts, tags and quotes are taken off, as BALROG's own agents want; what is still
  no command is written into ``failed_candidates`` and played, so that it costs a step.
- After the end: a step raises `EpisodeOverError`; BALROG's evaluator takes none.
- Pictures: ``image`` is None; BALROG's text agents need none.
- Groups: episodes of a task with one seed play the same.
- Time limits: ``max_steps``, which BALROG's progress bars count to as well.
- Many at once: BALROG's workers are processes; each makes its own.
- Closing: ``close()``.

What was checked: the calls of BALROG's evaluator and of its `EnvWrapper`, in both forms that its
repository holds (four values a step with ``seed()``, and Gymnasium's five), and what its prompt
builder reads of an observation. BALROG itself was not run: its package is not published, and it
needs NLE and MiniHack.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from himac_envs.adapters.rows import instructions
from himac_envs.adapters.session import Session
from himac_envs.errors import UnknownSplitError
from himac_envs.registry import benchmarks, find_env

HIERARCHICAL = "_hierarchical"


class AnyText:
    """BALROG's space of actions in words: everything may be said."""

    def __contains__(self, said: object) -> bool:
        return isinstance(said, str)


class HiMACBalrogEnv:
    """What BALROG's evaluator asks of an environment, its wrapper's part included.

    Args:
        env_id: The environment.
        task: A split, or the id of a task.
        old_steps: A step has four values, and `reset` one: BALROG's first form.
        **kwargs: For `Session`.
    """

    language_action_space = AnyText()
    #: What is played where an agent says nothing at all.
    default_action = "look"

    def __init__(self, env_id: str, task: str, *, old_steps: bool = False, **kwargs: Any) -> None:
        try:
            with Session(env_id, **kwargs) as session:
                session.task_ids(task)
            kwargs, self._task_id = {**kwargs, "split": task}, None
        except UnknownSplitError:
            kwargs, self._task_id = {"split": "all", **kwargs}, task
        self.session = Session(env_id, **kwargs)
        self.task_name = task
        self.failed_candidates: list[str] = []
        self._old = old_steps
        self._seed: int | None = None

    @property
    def unwrapped(self) -> HiMACBalrogEnv:
        """This environment: BALROG asks the innermost for its actions."""
        return self

    @property
    def max_steps(self) -> int:
        """The most answers that an episode can have."""
        return self.session.max_decisions or 100

    @property
    def actions(self) -> list[str]:
        """What is possible now."""
        return self.session.admissible

    def seed(self, seed: int | None = None) -> None:
        """Choose what the next `reset` draws (BALROG's first form)."""
        self._seed = seed

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """Begin an episode.

        Raises:
            UnknownTaskError: The task is neither a split nor a task of this data.
        """
        self.session.reset(self._task_id, self._seed if seed is None else seed)
        self._seed = None
        self.failed_candidates = []
        seen = self._seen()
        return seen if self._old else (seen, self.session.info)

    def step(self, action: str) -> Any:
        """Give one answer."""
        s = self.session
        planning = s.planning
        s.step(action)
        if s.invalid and not planning:
            self.failed_candidates.append(action)
        if self._old:
            return self._seen(), s.reward, s.done, s.info
        return self._seen(), s.reward, s.terminated, s.truncated, s.info

    def check_action_validity(self, candidate_action: str) -> str:
        """Return what is played for an answer: itself, since any text may be played.

        Whether it was a command, its step shows; `failed_candidates` has those that were none.
        """
        said = candidate_action if isinstance(candidate_action, str) else ""
        return said if said.strip() else self.default_action

    def get_text_action(self, action: Any) -> str:
        """Return an action in words; it is."""
        return str(action)

    def get_instruction_prompt(self, instructions: Any = None) -> str:
        """Return what an agent is told first."""
        return _told(self.session)

    def get_stats(self) -> dict[str, Any]:
        """Return what BALROG reports of an episode."""
        return {
            "progression": self.session.score,
            "won": self.session.won,
            "task_id": self.session.task_id,
        }

    def close(self) -> None:
        """Close the environment."""
        self.session.close()

    def _seen(self) -> dict[str, Any]:
        possible = self.session.admissible
        short = f"Possible now: {', '.join(possible)}" if possible and not self.session.done else ""
        return {
            "text": {"long_term_context": self.session.text, "short_term_context": short},
            "image": None,
        }


def _told(session: Session) -> str:
    return instructions(session.env_id, hierarchical=session.hierarchical)


def make_env(others: Callable[..., Any] | None = None, **kwargs: Any) -> Callable[..., Any]:
    """Return a `make_env` for BALROG that knows the benchmarks too.

    Args:
        others: BALROG's own, for all other names.
        **kwargs: For `HiMACBalrogEnv`: ``old_steps``, ``data``, ``max_steps`` and so on.
    """

    def make(env_name: str, task: str, config: Any, render_mode: str | None = None) -> Any:
        name = env_name.removesuffix(HIERARCHICAL)
        if name in benchmarks():
            found = find_env(name, flat=name == env_name)
            return HiMACBalrogEnv(found.id, task, **kwargs)
        if others is None:
            known = ", ".join(benchmarks())
            raise ValueError(f"Unknown environment: {env_name}; here there are {known}")
        return others(env_name, task, config, render_mode=render_mode)

    return make
