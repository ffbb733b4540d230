"""``himac push RUN NAME``: a trained run as a model repository on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from himac_envs.errors import HiMACError


def run(
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OWNER/NAME")],
    *,
    private: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    license: str = "",
    base: str = "",
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> int:
    """Publish a run: its newest checkpoint, its results, and a model card with the evaluation.

    All files are uploaded in one commit, so the repository is never incomplete. The Hub's token
    comes from `hf auth login` or HF_TOKEN; HF_ENDPOINT names another hub.

    Args:
        run: The run's folder.
        name: The repository; it is created if there is none.
        private: Create it as a private repository.
        license: The licence that the card states, by the Hub's short name ("apache-2.0").
        base: The base model that was trained, by its name on the Hub.
        dry_run: Only print the card and the list of files.
    """
    import huggingface_hub as hub

    from himac_agents.reports import card, runs

    console = Console(highlight=False)
    if not (run / "config.toml").is_file():
        raise HiMACError(
            f"{run} is not a run (it has no config.toml): give a folder that `himac train` made"
        )
    hub_name = _checked(name)
    found = card.files(run)
    text = card.card(runs.read_run(run), hub_name, licence=license, base=base)
    size = sum(path.stat().st_size for path in found.values())
    if dry_run:
        print(text)
        for place in found:
            print(place)
        return 0
    operations = [hub.CommitOperationAdd(place, str(path)) for place, path in sorted(found.items())]
    operations.append(hub.CommitOperationAdd("README.md", text.encode()))
    console.print(f"{len(operations)} files, {size / 1e6:.1f} MB, to {hub_name}", soft_wrap=True)
    address = _commit(hub_name, operations, private, f"himac push {run.resolve().name}")
    console.print(address, soft_wrap=True)
    return 0


def _checked(name: str) -> str:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ValueError(
            f"{name!r} is not the name of a repository (OWNER/NAME): {error}"
        ) from error
    return name


def _commit(name: str, operations: list[object], private: bool, message: str) -> str:
    """Makes the repository where there is none, and commits; returns its address.

    Raises:
        HiMACError: The hub refuses, or cannot be reached; nothing was changed in the repository.
    """
    import huggingface_hub as hub
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    # Which package it speaks through depends on its release: its own error is one of that's.
    unreached: tuple[type[Exception], ...] = (OSError, *HfHubHTTPError.__bases__)
    api = hub.HfApi(library_name="himac")
    try:
        address = api.create_repo(name, private=private or None, exist_ok=True)
        api.create_commit(address.repo_id, operations, commit_message=message)
    except LocalTokenNotFoundError as error:
        raise HiMACError(f"{api.endpoint} needs a login: {_LOGIN}") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        why = f"{api.endpoint} refused ({status}): {error.server_message or error}"
        if status in (401, 403):
            why += f". {_LOGIN}, with a token that may write to {name}"
        raise HiMACError(f"{why}. The repository is unchanged") from error
    except unreached as error:
        raise HiMACError(
            f"{api.endpoint} cannot be reached ({type(error).__name__}: {error}). The repository "
            "is unchanged; run the command again to continue: it sends only the missing files"
        ) from error
    return str(address)


_LOGIN = "log in with `hf auth login`, or set HF_TOKEN"
