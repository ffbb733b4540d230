"""The short help of `himac train`: what most want, and a way to all the rest."""

from __future__ import annotations

import dataclasses

import pytest

from himac_agents.cli import guide, main
from himac_agents.config import TrainConfig


def test_it_fits_two_screens_and_names_every_setting(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["train", "--help"]) == 0
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) <= 100
    for field in dataclasses.fields(TrainConfig):
        assert guide.option_of(field.name) in shown, field.name
    for option in ("--resume", "--out", "--data", "--processes", "--help-all"):
        assert option in shown
    assert "(60000)" in shown  # the preset's values are the defaults


def test_the_whole_help_is_there_when_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as over:
        main(["train", "--help-all"])
    assert over.value.code == 0
    whole = capsys.readouterr().out
    assert "--gigpo-discount" in whole and len(whole.splitlines()) > 150


def test_another_preset_has_other_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "hf", "--help"]) == 0
    assert "'hf'" in capsys.readouterr().out
    assert main(["train", "no-such-preset", "--help"]) == 1
    assert "no preset" in capsys.readouterr().err


def test_common_settings_exist_and_stand_once() -> None:
    names = [name for found in guide.COMMON.values() for name in found]
    assert len(set(names)) == len(names)
    assert set(names) <= {field.name for field in dataclasses.fields(TrainConfig)}
    left = [name for _, found in guide.others() for name in found]
    every = [*names, *left]
    assert sorted(every) == sorted(field.name for field in dataclasses.fields(TrainConfig))
