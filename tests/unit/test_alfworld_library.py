"""The library of generated games that environments play from."""

from __future__ import annotations

import pytest

from himac_envs.alfworld.errors import GameFileError
from himac_envs.alfworld.games import load_game
from himac_envs.alfworld.generate import GeneratedLibrary, generate_game, long_horizon
from himac_envs.alfworld.generate import export as export_module
from himac_envs.errors import UnknownSplitError, UnknownTaskError


def test_splits_and_their_official_names() -> None:
    library = GeneratedLibrary()
    assert library.counts() == {"train": 10_000, "valid": 1_000, "test": 1_000, "all": 12_000}
    assert library.task_ids("valid_seen") is library.task_ids("valid")
    assert library.task_ids("eval_in_distribution") is library.task_ids("valid")
    assert library.task_ids("eval_out_of_distribution") is library.task_ids("test")
    assert library.task_ids("valid_unseen") is library.task_ids("test")
    with pytest.raises(UnknownSplitError, match=r"'dev' is not a split .* 'train': 10000 tasks"):
        library.task_ids("dev")
    small = GeneratedLibrary(sizes={"train": 3, "test": 2})
    assert list(small.task_ids("all")) == [
        *("generated/test/000000", "generated/test/000001"),
        *("generated/train/000000", "generated/train/000001", "generated/train/000002"),
    ]
    with pytest.raises(UnknownSplitError):
        small.task_ids("valid")


def test_games_are_kept_and_the_same_as_generated() -> None:
    library = GeneratedLibrary(long_horizon(60))
    game = library.game("generated/valid/000017")
    assert library.game("generated/valid/000017") is game
    assert game.intro == generate_game("valid", 17, controls=long_horizon(60)).intro
    assert "put" in game.goal_text and library.annotations(game.task_id) == []
    old = library.game("generated/valid/000017", "2.1.1")
    assert old is not game and old.dialect.put_command and not old.dialect.has_help
    for task_id in ("generated/valid/001000", "valid/1", "generated/valid/17", ""):
        with pytest.raises(UnknownTaskError, match="there is no task"):
            library.game(task_id)


def test_the_least_recently_played_games_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("himac_envs.alfworld.generate.library._GAMES_KEPT", 2)
    library = GeneratedLibrary()
    ids = library.task_ids("train")
    first = library.game(ids[0])
    library.game(ids[1])
    assert library.game(ids[0]) is first
    library.game(ids[2])  # drops ids[1]
    assert library.game(ids[0]) is first
    library.game(ids[3])
    library.game(ids[4])
    assert library.game(ids[0]) is not first


def test_a_game_can_be_read_as_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    logic = export_module.Logic("(define (domain alfred))", '"Your task is to: UNKNOWN GOAL."')
    monkeypatch.setattr(export_module, "find_logic", lambda source=None: logic)
    content = GeneratedLibrary().read("generated/test/000003")
    assert generate_game("test", 3).goal_text.encode() in content
    with pytest.raises(GameFileError, match="grammar: expected"):
        load_game(content)  # a toy grammar is refused, not guessed at
