"""Files of an evaluation's episodes, one JSON object a line: written as they end, read by reports.

A line holds a record's keys (see `metrics.Record`), what the evaluation is about under
"evaluation", and, unless that was left out, the episode itself under "episode": its conversations
with the very messages that were read, the answers, commands and rewards, in the form of
`rollouts.trace.describe`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from himac_agents.evaluation.metrics import Record
from himac_agents.files import write_atomically
from himac_agents.rollouts.trace import describe
from himac_agents.rollouts.types import Episode


@dataclass(frozen=True)
class RecordLine:
    """One line of a file of records.

    Attributes:
        record: What the episode amounts to.
        about: What the evaluation is about.
        episode: The episode with its conversations; None where it was not kept.
        text: The line itself, with its end.
    """

    record: Record
    about: dict[str, Any]
    episode: dict[str, Any] | None
    text: str


def read_lines(path: Path) -> Iterator[RecordLine]:
    """The lines of a file of records; a torn last line is none.

    Raises:
        ValueError: A line is not a record of an episode.
    """
    lines = path.read_text(encoding="utf-8").split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, 1):
        try:
            values = json.loads(line)
            record, about = Record.from_json(values), dict(values["evaluation"])
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                break
            raise ValueError(f"{path}, line {number}: not a record of an episode") from error
        yield RecordLine(record, about, values.get("episode"), line + "\n")


def is_record_file(path: Path) -> bool:
    """Whether a file begins with a record of an evaluation."""
    with path.open(encoding="utf-8", errors="replace") as file:
        first = file.readline()
    try:
        values = json.loads(first)
    except ValueError:
        return False
    return isinstance(values, dict) and {"evaluation", "task_id", "seed"} <= set(values)


class RecordFile:
    """Records of an evaluation, written as episodes end.

    Args:
        path: The file.
        about: Who plays what and how, as JSON values; written into each line as "evaluation".
        resume: Go on with it: whole lines of episodes without an error are kept, and their records
            are `known`; the others are played again.
        transcripts: Whether lines hold whole episodes, prompts too.

    Raises:
        FileExistsError: It exists, and `resume` is not asked for.
        ValueError: It holds something else, or episodes of another evaluation.
    """

    def __init__(
        self,
        path: Path,
        about: Mapping[str, Any],
        *,
        resume: bool = False,
        transcripts: bool = True,
    ) -> None:
        if path.exists() and not resume:
            raise FileExistsError(
                f"{path} exists: --resume continues its evaluation; or choose another --records"
            )
        self.path = path
        self.about = json.loads(json.dumps(about, default=str))
        self.transcripts = transcripts
        kept = self._kept() if path.exists() else []
        self.known = [line.record for line in kept]
        write_atomically(path, "".join(line.text for line in kept))

    def add(self, record: Record, episode: Episode) -> None:
        """Appends an episode and what it amounts to."""
        values = {**record.to_json(), "evaluation": self.about}
        if self.transcripts:
            phase = f"evaluation/seed {record.seed}"
            values["episode"] = describe(episode, phase, 0, whole=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def _kept(self) -> list[RecordLine]:
        """The lines of episodes that need not be played again."""
        found = []
        for line in read_lines(self.path):
            ours, theirs = self.about, line.about
            apart = [k for k in {**ours, **theirs} if ours.get(k) != theirs.get(k)]
            if apart:
                told = ", ".join(f"{k} {theirs.get(k)!r}, not {ours.get(k)!r}" for k in apart)
                raise ValueError(
                    f"{self.path} holds another evaluation ({told}): choose another --records"
                )
            if line.record.error is None:
                found.append(line)
        return found


def panel_of(found: Mapping[str, Any]) -> str:
    """The split of an evaluation, and the name of the data that were played, where it is known."""
    split = str(found.get("split", "?"))
    name = (found.get("manifest", {}).get("data") or {}).get("name")
    return f"{split}, data: {name}" if name else split
