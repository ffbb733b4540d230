"""README is for a first visitor: short, with commands and code that run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

from pages_of_docs import ROOT, blocks, commands, dead_links

from himac_envs import registry

README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")


def test_it_is_short() -> None:
    assert len(TEXT.splitlines()) <= 120
    (code,) = (block.body for block in blocks(README) if block.kind == "python")
    assert len(code.strip().splitlines()) <= 10
    proofs = TEXT.split("## What is proven", 1)[1].split("\n## ", 1)[0]
    assert len([line for line in proofs.splitlines() if line.startswith("|")]) == 2 + 5


def test_its_ten_lines_run(tmp_path: Path) -> None:
    (code,) = (block.body for block in blocks(README) if block.kind == "python")
    shown = _run(["-c", code], tmp_path).splitlines()
    assert shown[0] == "find and take a mug"
    assert shown[1].startswith("put the mug in/on the shelf {'index': 0")


def test_its_two_commands_run(tmp_path: Path) -> None:
    (block,) = (block for block in blocks(README) if block.kind == "bash")
    install, play = commands(block)
    assert install == ["pip", "install", ".[webshop]"] and (ROOT / "pyproject.toml").is_file()
    assert play[0] == "himac"
    shown = _run(["-m", "himac_agents", *play[1:]], tmp_path)
    assert "won: " in shown and "sub-goal 1 ended after" in shown


def test_the_targets_of_make_that_it_names_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"`make (\w+)", TEXT))
    assert {"train", "test", "parity", "docs"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_its_links_lead_somewhere() -> None:
    assert len(re.findall(r"\]\((?!http)", TEXT)) > 20
    assert dead_links(README) == []
    assert "](docs/tutorials/index.md)" in TEXT and "](examples/)" in TEXT


def test_what_it_counts_is_so() -> None:
    assert f"[{len(registry.env_cards())} ids]" in TEXT


def test_its_picture_is_one_file_that_loads_nothing() -> None:
    path = ROOT / "docs" / "assets" / "episode.svg"
    root = ET.fromstring(path.read_text(encoding="utf-8"))
    assert root.attrib["role"] == "img" and "sub_done" in "".join(root.itertext())
    loads = [value for e in root.iter() for key, value in e.attrib.items() if "href" in key]
    assert not loads and f"({path.relative_to(ROOT)})" in TEXT


def _run(arguments: list[str], folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
