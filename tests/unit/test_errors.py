"""The suite's errors go from process to process."""

from __future__ import annotations

import copy
import pickle

import pytest

from himac_envs import errors
from himac_envs.adapters.errors import EpisodeOverError, MissingStackError
from himac_envs.download import DownloadError

ERRORS = [
    errors.UnknownTaskError("mug", ["mugs", "bowl"], "the kitchen"),
    errors.UnknownSplitError("dev", {"train": 3}, "the kitchen"),
    errors.MissingDependencyError("flask", "the site", "webshop"),
    EpisodeOverError(True),
    MissingStackError("gem", "pip install gem-llm", ImportError("No module", name="gem")),
    DownloadError("no connection"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_are_copied_whole(error: errors.HiMACError) -> None:
    error.add_note("seen in lane 3")
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is type(error) and str(twin) == str(error)
        assert twin.args == error.args and twin.__notes__ == error.__notes__
        if isinstance(error, ImportError):
            assert twin.name == error.name
