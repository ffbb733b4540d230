"""The contract's own checks, on a small environment and on broken ones."""

from __future__ import annotations

from itertools import islice

import pytest
from toy import FruitEnv

from himac_envs import Blueprint, HierarchicalEnv, Outcome
from himac_envs.testing import ConformanceError, check_task_env


def test_a_good_environment_passes() -> None:
    check_task_env(FruitEnv(), tasks=5)


class _RaisesOnNul(FruitEnv):
    def _act(self, command: str) -> Outcome:
        if "\x00" in command:
            raise RuntimeError
        return super()._act(command)


class _AcceptsAnything(FruitEnv):
    def _act(self, command: str) -> Outcome:
        outcome = super()._act(command)
        outcome.invalid = False
        return outcome


class _ForgetsState(FruitEnv):
    def _load(self, state: object) -> None:
        pass


class _BadScore(FruitEnv):
    def _score(self) -> float:
        return 1.5


class _LazyOracle(FruitEnv):
    def oracle(self, subgoal: str | None = None):  # type: ignore[no-untyped-def]
        yield from islice(super().oracle(subgoal), 1)


@pytest.mark.parametrize(
    "broken", [_RaisesOnNul, _AcceptsAnything, _ForgetsState, _BadScore, _LazyOracle]
)
def test_broken_environments_are_found(broken: type[FruitEnv]) -> None:
    with pytest.raises((ConformanceError, RuntimeError)):
        check_task_env(broken())


class _PlansOnce(FruitEnv):
    """A planner that is asked again in mid-episode gets nothing."""

    def oracle_blueprint(self) -> Blueprint:
        return Blueprint.of([]) if self._steps else super().oracle_blueprint()


class _PlansNothing(FruitEnv):
    def oracle_blueprint(self) -> Blueprint:
        return None if self._steps else super().oracle_blueprint()  # type: ignore[return-value]


@pytest.mark.parametrize("broken", [_PlansOnce, _PlansNothing])
def test_there_is_a_blueprint_until_the_task_is_won(broken: type[FruitEnv]) -> None:
    with pytest.raises(ConformanceError, match=r"after 1 steps: oracle_blueprint\(\)"):
        check_task_env(broken())


def test_other_environments_are_refused() -> None:
    with pytest.raises(TypeError, match="HierarchicalEnv"):
        check_task_env(HierarchicalEnv(FruitEnv()))
