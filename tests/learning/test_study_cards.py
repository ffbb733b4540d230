"""Cards of studies: what is none is refused when it is read, with its name and the key's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from fruit_studies import written

from himac_agents.experiments.study import overview, page
from himac_agents.experiments.study.plan import Study
from himac_envs import registry

ROWS = '[[runs]]\ncells = ["fruit"]\nmethods = ["himac", "himac-joint", "grpo"]\n'


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., Path]:
    """The card of the toy study with its parts replaced."""
    card = written(tmp_path)

    def change(*replaced: tuple[str, str]) -> Path:
        text = card.read_text()
        for old, new in replaced:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        card.write_text(text)
        return card

    return change


TOP = "seeds = [0]\n"
FLAT = "flat = { warm_steps = 14 }"
CELLS = 'cells = ["fruit"]'
METHODS = 'methods = ["himac", "himac-joint", "grpo"]'
HIMAC = "[methods.himac]\n"
OWN = 'baselines = ["supervised"]\n'


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        # Keys: unknown ones, those that are missing, and what they may hold.
        (TOP, TOP + "sedes = [1]\n", r"unknown key 'sedes'\. Did you mean seeds\?"),
        (CELLS, CELLS + "\nseed = [3]", r"\[\[runs\]\] number 1: unknown key 'seed'\. .* seeds\?"),
        (FLAT, "flatt = {}", r"\[cells\.fruit\]: unknown key 'flatt'\. Did you mean flat\?"),
        (FLAT, 'name = "pear"', r"\[cells\.fruit\]: unknown key 'name'"),
        ("preset = ", "changes = {}\n# ", r"\[cells\.fruit\]: needs `preset`"),
        ('summary = "A toy."', "", "needs `summary`"),
        ('summary = "A toy."', "summary = 3", "summary=3 should be of type str"),
        (TOP, 'seeds = "01"\n', "seeds='01' should be a list"),
        (TOP, "seeds = [0.7]\n", "seeds=0.7 should be of type int"),
        (TOP, "seeds = [nan]\n", "seeds=nan should be of type int"),
        (TOP, "seeds = []\n", "`seeds` is empty"),
        (TOP, "seeds = [0, 0]\n", "`seeds` holds 0 twice"),
        (TOP, "seeds = [-1]\n", "seed=-1: must be between"),
        (CELLS, CELLS + "\nseeds = [[0]]", r"number 1: seeds=\[0\] should be of type int"),
        (CELLS, CELLS + "\nseeds = 3", "number 1: seeds=3 should be a list"),
        (CELLS, CELLS + "\nseeds = [true]", "number 1: seeds=True should be of type int"),
        (CELLS, CELLS + "\nseeds = []", "number 1: `seeds` is empty"),
        (CELLS, CELLS + "\nseeds = [-1]", "number 1: seed=-1: must be between"),
        (CELLS, 'cells = "fruit"', "number 1: cells='fruit' should be a list"),
        (CELLS, "cells = []", "number 1: `cells` is empty"),
        (METHODS, "methods = []", "number 1: `methods` is empty"),
        (METHODS, 'methods = ["himac", "himac"]', "number 1: `methods` holds 'himac' twice"),
        (METHODS, "methods = [1]", "number 1: methods=1 should be of type str"),
        (ROWS, "[runs]\n", r"runs=\{\} should be a list"),
        (f"{FLAT}\n{ROWS}", "", "needs `runs`"),
        (TOP, TOP + 'readme = "false"\n', "readme='false' should be of type bool"),
        (FLAT, 'place = "one"', r"\[cells\.fruit\]: place='one' should be of type float"),
        (FLAT, "place = inf", r"\[cells\.fruit\]: place=inf: must be finite"),
        (FLAT, "flat = [1]", r"\[cells\.fruit\]: flat=\[1\] should be a mapping"),
        (FLAT, 'changes = "x"', r"changes='x' should be a mapping"),
        (f"{HIMAC}{OWN}", "[methods]\nhimac = []\n", r"methods\.himac=\[\] should be a mapping"),
        # What is changed: settings that there are, and are not each run's own.
        (FLAT, "flat = { lr = nan }", "lr=nan"),
        (FLAT, "flat = { foo = 1 }", r"\[cells\.fruit\] flat: unknown setting 'foo'"),
        (FLAT, 'flat = { lrs = "x" }', r"unknown setting 'lrs'\. Did you mean lr"),
        (FLAT, 'changes = { iterations = "3" }', "changes: iterations='3' should be of type int"),
        (FLAT, "hierarchical = { lr = -1 }", r"hierarchical: lr=-1\.0: must be at least 0"),
        (FLAT, "flat = { seed = 5 }", "flat: seed is each run's own: name `seeds`"),
        (FLAT, 'changes = { method = "grpo" }', "changes: method is each run's own"),
        (HIMAC, HIMAC + "seed = 5\n", r"\[methods\.himac\]: seed is each run's own"),
        (HIMAC, HIMAC + "lr = [1]\n", r"\[methods\.himac\]: lr=\[1\] should be of type float"),
        # Names of what is not there.
        (CELLS, 'cells = ["fruits"]', r"unknown cell 'fruits'\. Did you mean fruit\?"),
        (TOP, TOP + 'base = "nonsense"\n', "base='nonsense' is none of the methods"),
        (TOP, TOP + 'base = "gigpo"\n', "base='gigpo' is none of the methods"),
        (TOP, TOP + 'view = "pie"\n', "view='pie': choose one of sweep, bottleneck"),
        (TOP, TOP + 'view = "sweep"\n', r"\[cells\.fruit\]: view = \"sweep\" needs `place`"),
        (HIMAC, "[methods.hinac]\n", r"\[methods\.hinac\]: no \[\[runs\]\] names it\. .* himac"),
    ],
)  # fmt: skip
def test_what_is_no_card_is_refused_when_it_is_read(
    changed: Callable[..., Path], old: str, new: str, says: str
) -> None:
    with pytest.raises(ValueError, match=f"^study 'toy'.*(?:{says})"):
        Study.load(str(changed((old, new))))


@pytest.mark.parametrize("name", ["../fruit", "a/b", "", ".hidden", "a--b", "a-", "-a", "a b", "é"])
def test_names_that_files_cannot_have_are_refused(changed: Callable[..., Path], name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a cell: use letters"):
        Study.load(
            str(changed(("[cells.fruit]", f'[cells."{name}"]'), (CELLS, f'cells = ["{name}"]')))
        )


def test_each_run_has_a_folder_and_each_cell_a_record_of_its_own(
    changed: Callable[..., Path],
) -> None:
    card = changed((METHODS, 'methods = ["a/../b"]'))
    with pytest.raises(ValueError, match=r"'a/\.\./b' cannot name a method"):
        Study.load(str(card))
    # "fruit" with "x-grpo", and "fruit-x" with "grpo".
    text = card.read_text().replace('"a/../b"', '"x-grpo"').replace(HIMAC, "[methods.x-grpo]\n")
    text += 'method = "grpo"\n[cells.fruit-x]\npreset = "p"\n[[runs]]\ncells = ["fruit-x"]\n'
    card.write_text(f'{text}methods = ["grpo"]\n')
    with pytest.raises(ValueError, match="would share the folder runs/fruit-x-grpo-seed0"):
        Study.load(str(card))
    card.write_text(f'{text}methods = ["himac"]\n')
    assert Study.load(str(card)).size == 2
    # A run that two rows name: the second one's seeds were forgotten.
    card.write_text(f'{text}methods = ["himac"]\n{ROWS.replace("himac-joint", "x-grpo")}')
    with pytest.raises(ValueError, match=r"two rows of \[\[runs\]\] name 'x-grpo' in cell 'fruit'"):
        Study.load(str(card))
    # Records are called STUDY-CELL: "toy" with "x-y", and "toy-x" with "y".
    with pytest.raises(ValueError, match="'toy-x' cannot name a study"):
        Study.load(str(card.rename(card.with_name("toy-x.toml"))))


def test_the_settings_of_all_runs_are_made_before_one_begins(changed: Callable[..., Path]) -> None:
    # What only the method can tell, and of a run that was not asked for.
    card = changed((HIMAC, '[methods.grpo]\nbaselines = ["oracle-planner"]\n' + HIMAC))
    study = Study.load(str(card))
    with pytest.raises(ValueError, match=r"study 'toy', cell 'fruit', method 'grpo': .* is flat"):
        study.jobs(methods=["himac"])
    card.write_text(card.read_text().replace("preset.toml", "nowhere.toml"))
    with pytest.raises(FileNotFoundError, match=r"study 'toy', cell 'fruit'.*nowhere\.toml"):
        Study.load(str(card)).jobs()


def test_what_is_recorded_of_methods_that_are_not_known_can_be_shown(
    changed: Callable[..., Path],
) -> None:
    study = Study.load(str(changed((METHODS, 'methods = ["himac", "gone"]'))))
    assert study.seeds_for("fruit", "gone") == {0}
    with pytest.raises(ValueError, match="unknown method 'gone'"):
        study.jobs()


def test_the_cards_of_the_registry_are_read_as_they_are_written() -> None:
    for name in registry.names("studies"):
        content, study = registry.read("studies", name), Study.load(name)
        assert study.seeds == tuple(content["seeds"])
        assert study.changes == content.get("methods", {})
        assert [row.methods for row in study.rows] == [tuple(r["methods"]) for r in content["runs"]]
        assert {key: cell.changes for key, cell in study.cells.items()} == {
            key: table.get("changes", {}) for key, table in content["cells"].items()
        }


@pytest.mark.parametrize(
    ("own", "recorded", "note"),
    [
        ("seeds = [0, 1, 2, 3, 4]\n", [0, 1, 2], "3 of 5 seeds"),
        ("seeds = [0, 1]\n", [0, 1], ""),
        ("", [0, 1], "2 of 3 seeds"),
        ("", [0, 1, 2], ""),
        (f"seeds = [0, 1]\n{ROWS}seeds = [7, 8]\n", [0, 1, 7], "3 of 4 seeds"),
        (f"seeds = [0, 1]\n{ROWS}seeds = [7, 8]\n", [0, 1, 7, 8], ""),
        # A seed that no row names (any more) does not stand for one that is missing.
        ("seeds = [0, 1]\n", [0, 7], "2 of 3 seeds"),
    ],
)
def test_a_mean_over_fewer_seeds_than_its_rows_name_says_so(
    changed: Callable[..., Path], tmp_path: Path, own: str, recorded: list[int], note: str
) -> None:
    study = Study.load(str(changed((TOP, "seeds = [0, 1, 2]\n"), (ROWS, ROWS + own))))
    score = {"success": 0.5, "ci95": [0.0, 1.0], "greedy": 0.5}
    runs = [
        {"method": "grpo", "seed": seed, "warm_start": score, "final": score} for seed in recorded
    ]
    cell = {"episodes": 8, "max_env_steps": 5, "runs": runs}
    (line,) = [x for x in overview.table([(study, {"fruit": cell})]).splitlines() if "GRPO" in x]
    assert line.partition("greedy 50.0 → 50.0")[2] == (f"<br>{note} |" if note else " |")
    # The page names them, whatever the card asked for when the cell was recorded.
    left = study.left("fruit", runs)
    wanted = study.seeds_for("fruit", "grpo") - set(recorded)
    assert [run for run in left if "grpo" in run] == [
        f"runs/fruit-grpo-seed{seed}" for seed in sorted(wanted)
    ]
    gain = {"mean": 0.0, "ci95": [0.0, 0.0]}
    more = {**score, "greedy_ci95": [0.0, 1.0]}
    told = {"warm_start": more, "final": more, "gain": gain, "greedy_gain": gain, "work": {}}
    cell |= {"cell": "fruit", "env": "E", "preset": "p", "split": "test", "base": "himac",
             "command": "himac", "missing": ["fruit-gone-seed0"],
             "runs": [run | told for run in runs]}  # fmt: skip
    path = page.write_page(tmp_path / "page.md", [(study, {"fruit": cell})])
    names = ", ".join(run.removeprefix("runs/") for run in left)
    assert f"**Not finished yet:** {names}." in path.read_text(encoding="utf-8")
    whole = dataclasses.replace(study, readme=False)
    assert "GRPO" not in overview.table([(whole, {"fruit": cell})])
