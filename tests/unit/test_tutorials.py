"""The tutorials do what they say: every block is run in order, but for those that say why not."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from pages_of_docs import DOCS, ROOT, Block, blocks, commands, lines, pages

from himac_agents.cli import app, bench, train

TUTORIALS = sorted(p for p in (DOCS / "tutorials").glob("*.md") if p.stem != "index")
OTHERS = [DOCS / "hierarchy.md"]

#: Runs the blocks of one page in one process, which loads torch once; a command of `himac` is
#: called as the installed program calls it.
DRIVER = """
import glob, json, os, subprocess, sys
from himac_agents.cli import main
names = {"__name__": "__main__"}
sys.path.insert(0, os.getcwd())
for kind, body in json.load(sys.stdin):
    print("##", body if kind == "python" else " ".join(body), flush=True)
    if kind == "python":
        exec(compile(body, "the page", "exec"), names)
    elif body[0] == "himac":
        words = [name for word in body[1:] for name in sorted(glob.glob(word)) or [word]]
        try:
            status = main(words)
        except SystemExit as over:
            status = over.code
        assert not status, f"{' '.join(body)}: {status}"
    else:
        subprocess.run([sys.executable if body[0] == "python" else body[0], *body[1:]], check=True)
"""


def _work(page: Path, folder: Path) -> list[tuple[str, str | list[str]]]:
    """What of a page is run; files that it shows are written."""
    work: list[tuple[str, str | list[str]]] = []
    for block in blocks(page):
        if block.title:
            (folder / block.title).write_text(block.body, encoding="utf-8")
        elif block.kind == "python":
            work.append(("python", block.body))
        elif block.kind == "bash" and not block.not_run:
            tiny = shlex.split(block.tiny)
            for words in commands(block):
                trains = words[:2] == ["himac", "train"]
                work.append(("bash", [*words, *tiny] if trains else words))
    return work


@pytest.mark.parametrize("page", [*TUTORIALS, *OTHERS], ids=lambda p: p.stem)
def test_a_page_does_what_it_says(page: Path, tmp_path: Path) -> None:
    work = _work(page, tmp_path)
    if page.stem == "own-model":
        assert not work  # all of it needs a model
        return
    assert work
    if any("train" in words for _, words in work):
        pytest.importorskip("torch")
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(work),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


def test_every_tutorial_stands_in_the_list_of_them() -> None:
    index = (DOCS / "tutorials" / "index.md").read_text(encoding="utf-8")
    for page in TUTORIALS:
        assert f"({page.name})" in index
    for example in (ROOT / "examples").glob("*.py"):
        assert f"`{example.name}" in index


@cache
def _help(name: str) -> str:
    told = io.StringIO()
    words = [*name.split(), "--help-all" if name == "train" else "--help"]
    with contextlib.redirect_stdout(told), contextlib.suppress(SystemExit):
        app.main(words)
    return told.getvalue().replace("_", "-")


def _all_commands() -> list[tuple[str, list[str]]]:
    found = []
    for page in pages():
        for block in blocks(page):
            if block.kind in ("", "bash"):
                found += [(page.name, words) for words in _own(block)]
    return found


def _own(block: Block) -> list[list[str]]:
    """The commands of `himac` in a block."""
    kept = [line for line in lines(block) if line.startswith("himac ")]
    return list(commands(Block("bash", "\n".join(kept))))


def test_the_commands_that_the_pages_name_exist() -> None:
    found = _all_commands()
    assert len(found) > 40
    for page, (_, name, *rest) in found:
        assert name in app.COMMANDS, f"{page}: himac {name}"
        if name in ("data", "model") or (name == "bench" and rest[0] not in bench.BENCHES):
            name, rest = f"{name} {rest[0]}", rest[1:]
        for word in rest:
            option = word.partition("=")[0].replace("_", "-")
            if option.startswith("--"):
                assert option in _help(name), f"{page}: himac {name} has no {option}"
        if name == "train" and "[" not in " ".join(rest) and not {"--resume", "..."} & set(rest):
            # With every value: a word too many, or a preset that is none, is an error.
            train.parse([word for word in rest if word != "..."])
