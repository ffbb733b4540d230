"""Run folders as a trainer leaves them, hostile text, and a reader of the report's page."""

from __future__ import annotations

import html.parser
import json
from pathlib import Path
from typing import Any

HOSTILE = (
    "</script><script>window.broken=1</script><img src=x onerror='window.broken=1'>"
    "{{7*7}}{% raw %}&lt;\x00\x1b[31m\u202e\u2028\ud800 \"'"
)


def write_run(
    folder: Path,
    seed: int = 0,
    *,
    method: str = "himac",
    finished: bool = True,
    episodes: list[dict[str, Any]] | None = None,
    **settings: Any,
) -> Path:
    """A run folder as a trainer leaves it."""
    folder.mkdir(parents=True)
    plain = {
        "method": method, "env": "HiMAC-ALFWorld-v0", "flat_env": "HiMAC-ALFWorld-Flat-v0",
        "seed": seed, "eval_episodes": 100, **settings,
    }  # fmt: skip
    lines = [f"{k} = {json.dumps(v)}" for k, v in plain.items() if not isinstance(v, dict)]
    lines += ['env_kwargs = {data = "generated"}']
    (folder / "config.toml").write_text("\n".join(lines) + "\n")
    rows: list[dict[str, Any]] = [{"phase": "warm_start", "step": 50, "loss": 2.0 - seed, "lr": 1}]
    rows += [{"phase": "evaluation/warm_start", "step": 0, "temperature_1": 0.4, "greedy": 0.5}]
    for k in range(1, 5):
        work = {"env_steps_total": 1000 * k + 10 * seed, "tokens_total": 5000 * k}
        if method == "himac":
            rows.append({"phase": "planner", "step": k, "entropy": 0.1 * k, "clipped": 0.0, **work})
        rows.append({
            "phase": "executor" if method == "himac" else "flat", "step": k,
            "success": 0.1 * k + 0.02 * seed, "entropy": 0.5, "dead_groups": 0.25 * (k % 3),
            "ended_done": 0.5, "ended_truncated": 0.5, **work,
        })  # fmt: skip
    if finished:
        rows += [{"phase": "evaluation/final", "step": 4, "temperature_1": 0.6, "greedy": 0.7}]
        warm = {"success": 0.4, "episodes": 100, "ci95": [0.31, 0.5]}
        final = {"success": 0.6, "episodes": 100, "ci95": [0.5, 0.69]}
        result = {
            "method": method,
            "env": plain["env" if method == "himac" else "flat_env"],
            "warm_start": {**warm, "greedy": {"success": 0.5, "episodes": 100}},
            "final": {**final, "greedy": {"success": 0.7, "episodes": 100}},
            "baselines": {"oracle": {"success": 1.0, "episodes": 100}},
            "gain": {"temperature_1": {"mean": 0.2, "ci95": [0.1, 0.3]}},
            "work": {"env_steps": 4000 + 10 * seed, "tokens": 20000, "learning_seconds": 9.0},
        }
        (folder / "result.json").write_text(json.dumps(result))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    shown = [OLD_EPISODE] if episodes is None else episodes
    (folder / "episodes.jsonl").write_text("".join(json.dumps(e) + "\n" for e in shown))
    return folder


#: As runs wrote them before observations were kept.
OLD_EPISODE: dict[str, Any] = {
    "phase": "train", "step": 2, "task_id": "t/1", "goal": "put a mug in a sink.",
    "blueprint": ["take a mug", "put it in the sink"], "success": True, "return": 1.0,
    "env_steps": 3,
    "options": [{"index": 0, "subgoal": "take a mug", "steps": 2, "reward": 0.0,
                 "reason": "done", "achieved": True}],
    "segments": [{"role": "executor", "subgoal": "take a mug", "turns": [
        {"action": "take mug 1", "reward": 0.0, "invalid": False},
        {"action": "<sub_done>", "reward": 0.0, "invalid": False}]}],
    "error": None,
}  # fmt: skip


class _Reader(html.parser.HTMLParser):
    """Collects tags, scripts and everything that would be loaded from elsewhere."""

    VOID = frozenset({"meta", "input", "link", "br", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.handlers: list[str] = []
        self.scripts: dict[str, str] = {}
        self.at = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for key, value in attrs:
            outward = key == "href" and not str(value).startswith("#")
            if key in ("src", "srcset", "action") or outward:
                self.loads.append(str(value))
            if key.startswith("on"):
                self.handlers.append(key)
        if tag == "script":
            self.at = dict(attrs).get("type") or "script"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "script":
            self.at = ""

    def handle_data(self, data: str) -> None:
        if self.at:
            self.scripts[self.at] = self.scripts.get(self.at, "") + data


def read(text: str) -> _Reader:
    reader = _Reader()
    reader.feed(text)
    assert reader.open == []
    return reader


def data_of(text: str) -> Any:
    return json.loads(read(text).scripts["application/json"])
