"""The notebook runs from end to end, in a kernel of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="no Jupyter here: `make docs-test` has one")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("matplotlib")
pytest.importorskip("torch")

ROOT = Path(__file__).resolve().parents[2]


def test_the_notebook_plays_plots_and_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    book = nbformat.read(ROOT / "examples" / "notebook.ipynb", as_version=4)
    nbformat.validate(book)
    assert not any(cell.get("outputs") for cell in book.cells)  # it is kept without them
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(book, timeout=900, resources=where).execute()
    outputs = [out for cell in book.cells for out in cell.get("outputs", [])]
    told = "".join(out["text"] for out in outputs if out["output_type"] == "stream")
    assert "won: True" in told and "success on held-out tasks: " in told
    assert "report.html" in told
    pictures = [out for out in outputs if "image/png" in out.get("data", {})]
    assert len(pictures) == 2
