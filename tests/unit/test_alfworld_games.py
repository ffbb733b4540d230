"""The index of the official archives: what is played, what is left out, what is refused."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import pytest

from himac_envs.alfworld import archive
from himac_envs.alfworld.archive import TASK_TYPES, load_index
from himac_envs.alfworld.errors import GameFileError, UnknownRuleError, UnsolvableGameError
from himac_envs.alfworld.games import OfficialLibrary, load_game, open_library
from himac_envs.errors import UnknownSplitError, UnknownTaskError

ZIP = "json_2.1.2_tw-pddl.zip"


@pytest.fixture(scope="module")
def library(real_data: Path) -> OfficialLibrary:
    return open_library(real_data / "alfworld")


@pytest.fixture
def small(real_data: Path, tmp_path: Path) -> Path:
    """A folder with an archive of 12 valid_seen and 6 training games, one of them unsolvable."""
    with (
        zipfile.ZipFile(real_data / "alfworld" / ZIP) as full,
        zipfile.ZipFile(tmp_path / ZIP, "w", zipfile.ZIP_DEFLATED) as part,
    ):
        names = [n for n in full.namelist() if "/valid_seen/" in n][::12]
        names += [n for n in full.namelist() if "/train/" in n][::700]
        for name in names:
            part.writestr(name, full.read(name))
        bad = json.loads(full.read(names[0]))
        bad["solvable"] = False
        folder = "json_2.1.1/train/pick_and_place_simple-Mug-None-Desk-301/trial_1/"
        part.writestr(folder + "game.tw-pddl", json.dumps(bad))
    return tmp_path


def test_the_official_counts(library: OfficialLibrary) -> None:
    assert library.counts() == {
        "train": 3553,
        "valid_seen": 140,
        "valid_unseen": 0,
        "all": 3693,
    }
    assert set(library.index.left_out.values()) == {"it is marked unsolvable"}
    assert len(library.index.left_out) == 25
    for split in ("train", "valid_seen", "all"):
        ids = library.task_ids(split)
        assert list(ids) == sorted(set(ids))
        assert all(id_.count("/") == 2 for id_ in ids)
    assert library.task_ids("valid") == library.task_ids("valid_seen")
    assert library.task_ids("eval_in_distribution") == library.task_ids("valid_seen")
    with pytest.raises(UnknownSplitError, match="'valid_unseen' has no tasks"):
        library.task_ids("eval_out_of_distribution")


def test_a_tasks_type_is_its_folders_beginning(library: OfficialLibrary) -> None:
    """The index relies on this instead of opening 3,700 traj_data.json files."""
    for task_id in library.task_ids("all")[::25]:
        told = library.trajectory(task_id)["task_type"]
        assert task_id.split("/")[1].split("-")[0] == told
        assert told in TASK_TYPES


def test_a_split_without_games_lists_the_splits_with_their_counts(
    library: OfficialLibrary,
) -> None:
    for split in ("test", "valid_unseen"):
        with pytest.raises(
            UnknownSplitError, match=r"has no tasks.*'train': 3553.*'valid_seen': 140"
        ):
            library.task_ids(split)
    with pytest.raises(UnknownSplitError, match="is not a split"):
        library.task_ids("dev")


def test_unknown_and_unsolvable_tasks_are_refused(library: OfficialLibrary) -> None:
    known = library.task_ids("valid")[0]
    with pytest.raises(UnknownTaskError, match="Did you mean"):
        library.game(known[:-1])
    with pytest.raises(UnsolvableGameError, match="unsolvable"):
        library.game(next(iter(library.index.left_out)))


def test_the_same_game_from_archive_tree_and_folder_above(small: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    with zipfile.ZipFile(small / ZIP) as opened:
        opened.extractall(tree)
    above = tmp_path / "above"
    (above / "alfworld").mkdir(parents=True)
    shutil.copy(small / ZIP, above / "alfworld")
    libraries = [open_library(p) for p in (small, small / ZIP, tree, tree / "json_2.1.1", above)]
    first = libraries[0]
    assert len(first.task_ids("valid")) == 12
    assert len(first.index.left_out) == 1
    for other in libraries[1:]:
        assert other.counts() == first.counts()
        assert other.index.left_out == first.index.left_out
        for task_id in first.task_ids("all"):
            assert other.game(task_id).intro == first.game(task_id).intro


def test_a_game_without_traj_data_is_left_out_where_others_have_one(
    small: Path, tmp_path: Path
) -> None:
    ids = open_library(small).task_ids("all")
    with zipfile.ZipFile(small / "json_2.1.1_json.zip", "w") as traj:
        for task_id in ids[1:]:
            traj.writestr(f"json_2.1.1/{task_id}/traj_data.json", "{}")
    assert open_library(small).task_ids("all") == ids[1:]


def test_the_index_is_cached_beside_the_data_and_rebuilt_when_that_changes(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HIMAC_HOME", str(tmp_path / "home"))
    index = load_index(small)
    (cache,) = small.glob(".himac-cache/alfworld-index-*.json")
    assert not (tmp_path / "home").exists()

    def no_build(found: object) -> None:
        raise AssertionError("the cache was not used")

    with monkeypatch.context() as patch:
        patch.setattr(archive, "_build", no_build)
        assert load_index(small) == index
    cache.write_text("{ not json")
    assert load_index(small) == index
    with zipfile.ZipFile(small / ZIP, "a") as opened:
        name = opened.namelist()[0]
        copy = name.replace("trial_", "trial_copy_")
        opened.writestr(copy, opened.read(name))
    assert len(load_index(small).games) == len(index.games) + 1


def test_read_only_data_is_indexed_into_the_home(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HIMAC_HOME", str(tmp_path / "home"))
    data = tmp_path / "read-only"
    data.mkdir()
    shutil.copy(small / ZIP, data)
    data.chmod(0o555)
    try:
        load_index(data)
        assert [p.name for p in data.iterdir()] == [ZIP]
        assert list(tmp_path.glob("home/cache/alfworld-index-*.json"))
    finally:
        data.chmod(0o755)


def _count(folder: str) -> int:
    return len(load_index(folder).games)


def test_several_processes_may_build_the_index_at_once(small: Path) -> None:
    with get_context("spawn").Pool(4) as pool:
        assert len(set(pool.map(_count, [str(small)] * 8))) == 1


def _damage_header(path: Path) -> None:
    path.write_bytes(b"<html>not found</html>")


def _damage_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for position in range(2000, 2400):
        data[position] ^= 0xFF
    path.write_bytes(data)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize("damage", [_damage_header, _damage_middle, _truncate])
def test_a_damaged_archive_is_named(small: Path, damage: Callable[[Path], None]) -> None:
    damage(small / ZIP)
    with pytest.raises(GameFileError, match=rf"{ZIP}.*(archive|checksum|fetches it again)"):
        open_library(small)


def test_missing_data_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="himac data get alfworld"):
        open_library(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"holds no ALFWorld games.*json_2\.1\.2"):
        open_library(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"[]", "JSON object with the texts"),
        (b'{"pddl_domain": "", "grammar": ""}', "pddl_problem"),
        (b"\xff\xfe", "not JSON"),
    ],
)
def test_a_file_that_is_no_game_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(GameFileError, match=rf"game\.tw-pddl.*{message}|{message}"):
        load_game(content, source="game.tw-pddl")


CHANGES = {
    "a printed text": ("grammar", "You open the {r.name}.", "You pull the {r.name} open."),
    "a command": ("grammar", 'template :: "open {r}"', 'template :: "pull {r}"'),
    "a condition": ("pddl_domain", "(not (opened ?r))", "(opened ?r)"),
    "a new action": ("pddl_domain", "(:action look", "(:action dance"),
    "a new section": ("pddl_domain", "(:functions", "(:derived (x) (y)) (:functions"),
    "a cut domain": ("pddl_domain", "(:action look", "((:action look"),
    "a goal of another form": ("pddl_problem", "(exists (?r", "(forall (?r"),
    "no goal text": ("grammar", "Your task is to: ", "Do this: "),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_rules_are_refused_by_name(library: OfficialLibrary, change: str) -> None:
    task_id = next(i for i in library.task_ids("valid") if "pick_and_place" in i)
    data = json.loads(library.read(task_id))
    key, old, new = CHANGES[change]
    assert old in data[key]
    data[key] = data[key].replace(old, new)
    with pytest.raises(GameFileError) as caught:
        load_game(json.dumps(data), source="my/game.tw-pddl")
    assert str(caught.value).startswith("my/game.tw-pddl: ")
    if change in ("a printed text", "a command", "a condition", "a new action", "a new section"):
        assert isinstance(caught.value, UnknownRuleError)
        assert 'backend="textworld"' in str(caught.value)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("grammar", 'grammar :: """[1, 2]""";'),
        ("grammar", 'grammar :: """{"intro": 3}""";'),
        ("grammar", 'grammar :: """{"intro": ["#task#"]}""";'),
        ("grammar", "action look { template :: 3; }"),
        ("pddl_domain", "(define (domain alfred) " + "(" * 5000 + ")" * 5000 + ")"),
        ("pddl_domain", ""),
        ("pddl_problem", "(define (problem x) (:goal ()))"),
    ],
)
def test_odd_structures_are_refused(library: OfficialLibrary, key: str, text: str) -> None:
    data = json.loads(library.read(library.task_ids("valid")[0]))
    with pytest.raises(GameFileError, match=r"^a file: "):
        load_game(json.dumps({**data, key: text}), source="a file")


def test_comments_and_unused_rules_do_not_matter(library: OfficialLibrary) -> None:
    task_id = library.task_ids("valid")[0]
    data = json.loads(library.read(task_id))
    data["pddl_domain"] = "; put {o} in/on {r} ( \n" + data["pddl_domain"].replace("  ", " ")
    data["grammar"] = "# You arrive at {lend.name}\n" + data["grammar"].replace(
        "(in/on the {r.name})}", "somewhere"
    )
    game = load_game(json.dumps(data))
    assert game.intro == library.game(task_id).intro
    assert game.dialect.name == "2.1.2"


def test_both_dialects_are_recognised(library: OfficialLibrary) -> None:
    """2.1.1 files are 2.1.2 files before the upgrade: undo it and the rules are those of 2.1.1."""
    data = json.loads(library.read(library.task_ids("valid")[0]))
    grammar, _, _ = data["grammar"].partition("\naction help {")
    grammar = grammar.replace("You arrive at {r.name}.", "You arrive at {lend.name}.")
    grammar = grammar.replace("move {o} to {r}", "put {o} in/on {r}")
    grammar = grammar.replace(
        "You move the {o.name} to the {r.name}.", "You put the {o.name} in/on the {r.name}."
    )
    before, _, _ = data["pddl_domain"].partition("(:action help")
    old = load_game(json.dumps(data | {"grammar": grammar, "pddl_domain": before + ")"}))
    assert old.dialect.name == "2.1.1"
    assert load_game(json.dumps(data), dialect="2.1.1").dialect == old.dialect
    mixed = load_game(
        json.dumps(
            data
            | {
                "grammar": data["grammar"].replace(
                    "You arrive at {r.name}.", "You arrive at {lend.name}."
                )
            }
        )
    )
    assert mixed.dialect.name == "mixed"
    assert mixed.dialect.names_location
    assert not mixed.dialect.put_command
    with pytest.raises(ValueError, match=r"'2\.1\.1', '2\.1\.2'"):
        load_game(json.dumps(data), dialect="2.1.9")
