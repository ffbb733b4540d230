"""The pages that are made of the package: environments, reference, settings, commands, changes."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import episodes
import public

from himac_agents.cli import app
from himac_agents.config import settings_of
from himac_agents.config.tree import SECTIONS
from himac_envs import registry
from himac_envs.registry import EnvCard

ROOT = Path(__file__).resolve().parents[2]
#: Benchmarks of `himac bench` that have options of their own.
STUDIES = ("methods", "credit", "gpu", "llm")
#: Where an id's benchmark is described.
BENCHMARKS = {"alfworld": "alfworld.md", "webshop": "webshop/README.md", "sokoban": "sokoban.md"}


def generated() -> Iterator[tuple[str, str | bytes]]:
    """Path and content of each page and picture that no file holds."""
    yield "index.md", home()
    yield "changelog.md", _rebased(ROOT / "CHANGELOG.md")
    yield "contributing.md", _rebased(ROOT / "CONTRIBUTING.md")
    yield "environments/index.md", overview()
    for card in registry.env_cards().values():
        yield from environment(card)
    yield "reference/index.md", _reference_index()
    for package in ("himac_envs", "himac_agents"):
        yield f"reference/{package}.md", reference(package)
    yield "reference/settings.md", settings()
    yield "reference/commands.md", commands()
    yield "tutorials/notebook.md", notebook(ROOT / "examples" / "notebook.ipynb")
    for path in sorted((ROOT / "examples").rglob("*.py")):
        yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def home() -> str:
    """README as the first page: its links begin at the root of the repository."""
    return _rebased(ROOT / "README.md")


def _rebased(path: Path) -> str:
    """A file of the repository's root as a page: links to docs/ lead to the site's pages."""
    text = path.read_text(encoding="utf-8")
    text = text.replace("](docs/", "](").replace("](CHANGELOG.md", "](changelog.md")
    text = text.replace("](examples/)", "](tutorials/index.md#examples)")
    return text.replace("](CONTRIBUTING.md", "](contributing.md")


def to_examples(text: str, page: str) -> str:
    """A page's text with its links to the repository's examples leading to the site's copies.

    In the repository examples/ lies beside docs/; on the site it lies in it, and the notebook is a
    page.

    Args:
        text: The page's Markdown.
        page: Its place in docs/.
    """
    up = "../" * page.count("/")
    text = text.replace(f"]({up}../examples/notebook.ipynb)", f"]({up}tutorials/notebook.md)")
    return text.replace(f"]({up}../examples/", f"]({up}examples/")


def overview() -> str:
    """The list of all ids."""
    lines = [
        "# Environments", "",
        "Every id plays as soon as it is installed: where a benchmark's own data is missing, tasks",
        "are generated. [What every environment guarantees](../contract.md) holds for all of them,",
        "[the hierarchy](../hierarchy.md) for the ids without `Flat`.", "",
        "| id | what it is | needs |", "|---|---|---|",
    ]  # fmt: skip
    for card in registry.env_cards().values():
        needs = f"`pip install '.[{card.extra}]'`" if card.extra else "`pip install .`"
        lines.append(f"| [`{card.id}`]({card.id}.md) | {card.summary} | {needs} |")
    return "\n".join([*lines, ""])


def environment(card: EnvCard) -> Iterator[tuple[str, str | bytes]]:
    """An id's page, with the frames of its episode."""
    played = episodes.play(card)
    frames = f"environments/{card.id}.png"
    partner = registry.partner_of(card.id)
    lines = [f"# {card.id}", "", f"{card.summary[:1].upper()}{card.summary[1:]}.", ""]
    lines += ["```python", "import gymnasium as gym", "import himac_envs", ""]
    lines += [f'env = gym.make("{card.id}")', "observation, info = env.reset(seed=0)", "```", ""]
    lines.append(f"The benchmark: [{card.benchmark}](../{BENCHMARKS[card.benchmark]}).")
    if partner:
        how = "without the hierarchy" if card.kind == "hierarchical" else "behind the hierarchy"
        lines.append(f"The same tasks {how}: [`{partner}`]({partner}.md).")
    lines += ["", "## An episode", "", "An expert plays a task of `test`, seed 0."]
    lines += [played.note] if played.note else []
    lines.append(f"Result: {played.verdict}.")
    if played.frames:
        yield frames, episodes.strip(played.frames)
        lines += ["", f"![Frames of the episode, from left to right]({card.id}.png)"]
    lines += ["", "```text", *(line.replace("```", "'''") for line in played.lines), "```", ""]
    if card.kind == "hierarchical":
        lines += [
            "## The hierarchy", "",
            "The blueprint, `<sub_done>`, the arguments `max_subgoals`, `subgoal_budget`,",
            "`replans` and `sub_done`, and the further keys of observation and information are",
            "those of [`HierarchicalEnv`][himac_envs.HierarchicalEnv]. What follows is the task",
            "below it.", "",
        ]  # fmt: skip
    lines.append(docstring(public.env_class(card.id)))
    yield f"environments/{card.id}.md", "\n".join(lines)


def docstring(kind: type[Any]) -> str:
    """A class's docstring as Markdown: its sections, and `Args:` as a list."""
    text = inspect.getdoc(kind) or ""
    _, _, body = text.partition("\n\n")
    head, begun, arguments = body.partition("Args:\n")
    if not begun:
        return body
    listed, _, rest = arguments.partition("\n\n")
    items = re.sub(r"^ {4}(\w+): ", r"- `\1`: ", listed, flags=re.MULTILINE)
    items = re.sub(r"^ {8}", "  ", items, flags=re.MULTILINE)
    return f"{head}{items}\n\n{rest}"


def _reference_index() -> str:
    return (
        "# Reference\n\n"
        "- [Environments in Python](himac_envs.md): the package `himac_envs`.\n"
        "- [Agents in Python](himac_agents.md): the package `himac_agents`.\n"
        "- [Settings of a run](settings.md): every setting of `TrainConfig` and `himac train`.\n"
        "- [Command line](commands.md): every command with its options.\n\n"
        "What is not listed here may change without notice.\n"
    )


def reference(package: str) -> str:
    """The reference of a package's public names."""
    what = {"himac_envs": "Environments in Python", "himac_agents": "Agents in Python"}[package]
    lines = [f"# {what}", ""]
    for module, names in public.names(package).items():
        lines += [f"## `{module}`", ""]
        for name in names:
            lines += [f"::: {module}.{name}", "    options:", "      heading_level: 3", ""]
    return "\n".join(lines)


def settings() -> str:
    """Every setting of a run, section by section, as it is declared."""
    lines = [
        "# Settings of a run", "",
        "`himac train` takes each as an option (`--env-kwargs`, with hyphens), a preset or a file",
        "as a key, and [`TrainConfig`][himac_agents.TrainConfig] as an argument. A default that is",
        "empty is left to the method or follows from another setting.", "",
    ]  # fmt: skip
    for section in SECTIONS:
        lines += [
            f"## {str(section.__doc__).rstrip('.')}",
            "",
            "| setting | default | what it is |",
        ]
        lines.append("|---|---|---|")
        for field in dataclasses.fields(section):
            told = settings_of(section)[field.name]
            default = field.default if field.default is not dataclasses.MISSING else {}
            shown = "" if default in (None, "", {}, ()) else f"`{default}`"
            text = told.help.replace("|", "\\|").replace("<", "&lt;")
            lines.append(f"| `{field.name}` | {shown} | {text} |")
        lines.append("")
    return "\n".join(lines)


def commands() -> str:
    """Every command's help, as the terminal shows it."""
    lines = ["# Command line", "", f"`himac {' | '.join(app.COMMANDS)}`", ""]
    shown: list[tuple[str, list[str]]] = [(name, [name]) for name in app.COMMANDS]
    shown += [(f"bench {name}", ["bench", name]) for name in STUDIES]
    for name, words in shown:
        option = "--help-all" if name == "train" else "--help"
        lines += [f"## himac {name}", "", "```text", _help([*words, option]), "```", ""]
    return "\n".join(lines)


def _help(words: list[str]) -> str:
    """What the command line prints for a request of help, 78 columns wide and without colours."""
    before = {name: os.environ.get(name) for name in ("COLUMNS", "NO_COLOR")}
    os.environ |= {"COLUMNS": "78", "NO_COLOR": "1"}
    told = io.StringIO()
    try:
        with contextlib.redirect_stdout(told), contextlib.suppress(SystemExit):
            app.main(words)
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    text = re.sub(r"\x1b\[[0-9;]*m", "", told.getvalue())
    # What the machine at hand is like is no part of the help.
    text = text.replace(str(Path.home()), "~").replace(sys.prefix, "...")
    return "\n".join(line.rstrip() for line in text.strip().splitlines()).replace("```", "'''")


def notebook(path: Path) -> str:
    """A notebook as a page: its texts, and its code as blocks."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    parts = []
    for cell in cells:
        text = "".join(cell["source"]).strip().replace("](../docs/", "](../")
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    first, *rest = parts
    where = f"The notebook itself is `examples/{path.name}`; the tests run it from end to end."
    return "\n\n".join([first, where, *rest, ""])
