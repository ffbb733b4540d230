"""The tree of settings: declared once, checked when given, and the same behind a file."""

from __future__ import annotations

import dataclasses
import datetime as dt
import sys
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import gymnasium as gym
import pytest
import tyro
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from himac_agents.config import INCIDENTAL, LEARNING_FIELDS, TrainConfig, settings_of
from himac_agents.config.pairs import read_pairs, write_pairs

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    TEXT,
    st.dates(),
    st.times().map(lambda time: time.replace(fold=0)),
    st.datetimes(),
    st.datetimes(timezones=st.sampled_from([dt.UTC, dt.timezone(dt.timedelta(minutes=-90))])),
)
VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
MAPPINGS = st.dictionaries(TEXT, VALUES, max_size=4)


def _of(hint: Any, told: Any) -> st.SearchStrategy[Any]:
    """Valid values of a setting, from what is declared of it."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return st.one_of(*(_of(one, told) for one in inner))
    if origin is Literal:
        return st.sampled_from(inner)
    if origin is tuple:
        return st.lists(_of(inner[0], told), min_size=1, max_size=3).map(tuple)
    if origin is dict:
        return MAPPINGS
    if hint is types.NoneType:
        return st.none()
    if hint is bool:
        return st.booleans()
    if hint is str:
        return TEXT
    if hint is int:
        least = told.above + 1 if told.least is None else told.least
        return st.integers(int(least), int(told.most or 2**63 - 1))
    least = told.above if told.least is None else told.least
    return st.floats(least, told.most, exclude_min=told.least is None, allow_infinity=False)


_HINTS = get_type_hints(TrainConfig)
# These mean something only together.
_TOGETHER = {"env": "", "flat_env": "", "hidden": 16, "heads": 4, "lora_rank": 0,
             "separate_adapters": False, "shard": False, "rollout": "local",
             "servers": ()}  # fmt: skip
CONFIGS = st.fixed_dictionaries(
    {
        name: st.just(_TOGETHER[name]) if name in _TOGETHER else _of(_HINTS[name], told)
        for name, told in settings_of(TrainConfig).items()
    }
).map(lambda given: TrainConfig(**given))


@hypothesis_settings(max_examples=150, deadline=None)
@given(config=CONFIGS)
def test_every_valid_value_is_the_same_behind_a_file(
    config: TrainConfig, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("settings") / "config.toml"
    file.write_bytes(config.to_toml().encode())
    again = TrainConfig.from_toml(file)
    assert again == config
    # Equal is not enough: 1 is True is 1.0.
    for name in settings_of(TrainConfig):
        assert repr(getattr(again, name)) == repr(getattr(config, name)), name


@hypothesis_settings(max_examples=300, deadline=None)
@given(values=MAPPINGS)
def test_mappings_are_the_same_behind_the_command_line(values: dict[str, Any]) -> None:
    values = TrainConfig(env_kwargs=values).env_kwargs
    words = write_pairs(values)
    assert not any(word.startswith("-") for word in words)
    again = read_pairs(words)
    assert again == values and repr(again) == repr(values)


def test_what_failed_before_is_the_same_behind_a_file(tmp_path: Path) -> None:
    """A dotted key, a carriage return, an inner table, a name that needs quotes."""
    kwargs = {"a.b": 1, "two words": {"x = 1": [1, {"y": 2.0}]}, "": "", "day": dt.date(2020, 1, 2)}
    config = TrainConfig(env_kwargs=kwargs, note='a\rb\r\n\x00"\\\x7f', lr=1)
    (tmp_path / "c.toml").write_bytes(config.to_toml().encode())
    again = TrainConfig.from_toml(tmp_path / "c.toml")
    assert again == config and again.env_kwargs == kwargs and again.note == config.note
    assert type(again.lr) is type(config.lr) is float
    held = TrainConfig(env_kwargs={"room": (6, 7), "at": dt.time(1, fold=1)}).env_kwargs
    assert held["room"] == [6, 7] and held["at"].fold == 0, "in the form that a file gives back"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"env_kwargs": {"data": None}}, r"env_kwargs\.data=None"),
        ({"env_kwargs": {"data": {"deep": [1, None]}}}, r"env_kwargs\.data\.deep\[1\]=None"),
        ({"env_kwargs": {1: "a"}}, "env_kwargs: the key 1 is not a string"),
        ({"env_kwargs": {"x": float("nan")}}, r"env_kwargs\.x=nan"),
        ({"env_kwargs": {"x": 2**63}}, r"env_kwargs\.x=.*2\^63"),
        ({"env_kwargs": {"folder": Path("data")}}, r"env_kwargs\.folder=.*give it as text"),
        ({"env_kwargs": {"t": dt.time(1, tzinfo=dt.UTC)}}, r"env_kwargs\.t="),
        ({"env_kwargs": [1]}, r"env_kwargs=\[1\] should be a mapping"),
        ({"template_options": {"x": {2}}}, r"template_options\.x="),
        ({"note": "\ud800"}, "note=.*UTF-8"),
        ({"note": 3}, "note=3 should be of type str"),
        ({"tasks": True}, "tasks=True should be of type int"),
        ({"tasks": 2.0}, "tasks=2.0 should be of type int"),
        ({"tasks": 10**30}, "tasks=.*2\\^63"),
        ({"match": 1}, "match=1 should be of type bool"),
        ({"lr": True}, "lr=True should be of type float"),
        ({"lr": float("inf")}, "lr=inf: must be at least 0"),
        ({"history": 1.5}, 'history=1.5 should be "episode" or of type int'),
        ({"history": -1}, "history=-1: must be at least 0"),
        ({"baselines": "grpo"}, "baselines='grpo' should be a list"),
        ({"loggers": [1]}, "loggers=1 should be of type str"),
        ({"plan_noise": 1.5}, "plan_noise=1.5: must be between 0 and 1"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_by_name_when_it_is_given(
    changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        TrainConfig(**changes)
    with pytest.raises(ValueError, match=says):
        TrainConfig().replace(**changes)
    with pytest.raises(ValueError, match=f"a file: {says}"):
        TrainConfig.from_dict(changes, "a file")


def test_each_setting_is_declared_with_help_limits_and_what_it_changes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    declared = settings_of(TrainConfig)
    assert list(declared) == [item.name for item in dataclasses.fields(TrainConfig)]
    for name, told in declared.items():
        kind = type(getattr(TrainConfig(), name))
        assert len(told.help.split()) > 1 and told.help.rstrip(".") != told.help, name
        if kind in (int, float):
            assert (told.least, told.above) != (None, None), f"{name} has no lower limit"
    with pytest.raises(SystemExit):
        tyro.cli(TrainConfig, args=["--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for name, told in declared.items():
        assert f"--{name.replace('_', '-')}" in shown, name
        assert " ".join(told.help.split()[:4]) in shown, name


def test_what_a_setting_changes_is_asked_where_it_matters() -> None:
    """The warm start of a study is shared, and runs stand in one group, by these alone."""
    assert {"lr", "kl", "iterations", "method", "note", "max_tokens"} <= LEARNING_FIELDS
    assert not {"seed", "env", "warm_steps", "hidden", "eval_split", "demos"} & LEARNING_FIELDS
    assert {"seed", "iterations", "threads", "note", "eval_every"} <= INCIDENTAL
    assert not {"lr", "method", "env", "warm_steps", "eval_split", "tasks"} & INCIDENTAL


# -- two ids of one benchmark ---


@pytest.mark.parametrize(
    ("given", "env", "flat_env"),
    [
        ({}, "HiMAC-ALFWorld-v0", "HiMAC-ALFWorld-Flat-v0"),
        ({"env": "HiMAC-WebShop-v0"}, "HiMAC-WebShop-v0", "HiMAC-WebShop-Flat-v0"),
        ({"env": "sokoban"}, "HiMAC-Sokoban-v0", "HiMAC-Sokoban-Flat-v0"),
        ({"flat_env": "HiMAC-Sokoban-Flat-v0"}, "HiMAC-Sokoban-v0", "HiMAC-Sokoban-Flat-v0"),
        (
            {"env": "HiMAC-ALFWorld-Long-v0"},
            "HiMAC-ALFWorld-Long-v0",
            "HiMAC-ALFWorld-Long-Flat-v0",
        ),
        ({"env": "mine:A-v0", "flat_env": "mine:B-v3"}, "mine:A-v0", "mine:B-v3"),
    ],
    ids=str,
)
def test_one_environment_tells_the_other(given: dict[str, str], env: str, flat_env: str) -> None:
    config = TrainConfig(**given)
    assert (config.env, config.flat_env) == (env, flat_env)
    assert config.env_id(flat=False) == env and config.env_id(flat=True) == flat_env
    if given:
        # What belonged to the former environment does not stay.
        other = TrainConfig(env="HiMAC-WebShop-v0", seed=3).replace(**given)
        assert other == config.replace(seed=3)
        preset = TrainConfig.preset("quickstart", **given)
        assert (preset.env, preset.flat_env) == (env, flat_env)


@pytest.mark.parametrize(
    ("env", "flat_env"),
    [
        ("HiMAC-WebShop-v0", "HiMAC-ALFWorld-Flat-v0"),
        ("HiMAC-ALFWorld-v0", "HiMAC-ALFWorld-Long-Flat-v0"),
        ("mine:A-v0", "HiMAC-ALFWorld-Flat-v0"),
        ("HiMAC-ALFWorld-v0", "mine:A-Flat-v0"),
    ],
)
def test_two_benchmarks_are_refused(env: str, flat_env: str) -> None:
    with pytest.raises(ValueError, match="not the same tasks"):
        TrainConfig(env=env, flat_env=flat_env)


def test_an_own_environment_tells_its_other_where_that_is_registered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "mine", types.ModuleType("mine"))
    config = TrainConfig(env="mine:Own-v0")
    assert config.flat_env == "" and config.env_id(flat=False) == "mine:Own-v0"
    with pytest.raises(ValueError, match=r"flat_env is not set.*'mine:Own-Flat-v0'.*--flat-env"):
        config.env_id(flat=True)
    spec = gym.envs.registration.EnvSpec("Own-Flat-v0", entry_point="mine:none")
    monkeypatch.setitem(gym.registry, "Own-Flat-v0", spec)
    assert config.env_id(flat=True) == "mine:Own-Flat-v0"
    with pytest.raises(ValueError, match=r"env is not set.*--env"):
        TrainConfig(flat_env="mine:Other-Flat-v0").env_id(flat=False)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"rollout": "vllm"}, "needs policy='hf'"),
        ({"policy": "hf", "rollout": "server"}, "belong together"),
        ({"policy": "hf", "servers": ("http://x",)}, "belong together"),
    ],
)
def test_who_samples_goes_with_what_is_sampled(settings: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        TrainConfig(**settings)
