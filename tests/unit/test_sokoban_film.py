"""``--record`` of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("PIL.Image", reason="needs Pillow: pip install 'himac[sokoban]'")


def test_play_and_eval_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from himac_agents.cli import evaluation, play

    played, judged = tmp_path / "play.gif", tmp_path / "eval.gif"
    assert play.run("HiMAC-Sokoban-v0", seed=1, expert=True, record=played) == 0
    assert played.stat().st_size > 200
    status = evaluation.run("HiMAC-Sokoban-v0", agent="oracle", episodes=2, record=judged)
    assert status == 0 and judged.stat().st_size > 200
    assert str(judged) in capsys.readouterr().out
    with pytest.raises(ValueError, match="render_mode"):
        play.run("HiMAC-ALFWorld-Flat-v0", expert=True, record=tmp_path / "x.gif")
