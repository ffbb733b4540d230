"""WebShop's data and compiled folders when things go wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

import himac_envs
from himac_envs.webshop import store
from himac_envs.webshop.catalogue import Catalogue, SourceFiles, compile_catalogue, open_catalogue
from himac_envs.webshop.data import catalogue_for
from himac_envs.webshop.errors import CatalogueError
from himac_envs.webshop.generate import ShopGenerator
from himac_envs.webshop.goals import Goals
from himac_envs.webshop.products import clean_products

assert himac_envs
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with files of the published form."""
    folder = tmp_path / "source"
    folder.mkdir()
    rows, mined = zip(*(ShopGenerator().row(n) for n in range(120)), strict=True)
    (folder / "items_shuffle_1000.json").write_text(json.dumps(rows))
    table = {row["asin"]: entry for row, entry in zip(rows, mined, strict=True)}
    (folder / "items_ins_v2_1000.json").write_text(json.dumps(table))
    return folder


def _play(data: Path) -> Any:
    env = gym.make("HiMAC-WebShop-Flat-v0", data=str(data), split="all").unwrapped
    env.reset(options={"task_id": "0"})
    return env, env.step("search[lamp]")


def test_published_files_compile_and_play(source: Path) -> None:
    env, step = _play(source)
    assert env.catalogue.size == 120 and "Total results" in step[0]["text"]
    assert (source / ".himac-cache" / "webshop").is_dir()


def test_a_read_only_folder_stays_untouched(source: Path) -> None:
    source.chmod(0o555)
    env, _ = _play(source)
    assert not (source / ".himac-cache").exists()
    assert str(env.catalogue.folder).startswith(os.environ["HIMAC_HOME"])
    source.chmod(0o755)


def test_changed_inputs_are_compiled_anew(source: Path) -> None:
    first = catalogue_for(str(source))
    path = source / "items_shuffle_1000.json"
    rows = json.loads(path.read_text())
    rows[0]["name"] = "Entirely Other Lamp"
    path.write_text(json.dumps(rows))
    second = catalogue_for(str(source))
    assert second.folder != first.folder
    assert second.product(0).title == "Entirely Other Lamp"


@pytest.mark.parametrize("damage", ["cut", "missing", "manifest", "version"])
def test_a_damaged_or_older_store_is_compiled_anew(source: Path, damage: str) -> None:
    files = SourceFiles.find(source)
    folder = compile_catalogue(files)
    _damage(folder, damage)
    with pytest.raises(CatalogueError, match=r"delete .* and run `himac data build|damaged"):
        Catalogue(folder)
    assert compile_catalogue(files) == folder
    assert Catalogue(folder).size == 120


def _damage(folder: Path, damage: str) -> None:
    if damage == "cut":
        with (folder / "products.bin").open("r+b") as file:
            file.truncate(100)
    elif damage == "missing":
        (folder / "codes.npy").unlink()
    elif damage == "manifest":
        (folder / store.MANIFEST).write_text("{")
    else:
        manifest = json.loads((folder / store.MANIFEST).read_text())
        manifest["version"] = 0
        (folder / store.MANIFEST).write_text(json.dumps(manifest))


def test_flipped_bytes_are_found_by_verify_and_named_when_met(source: Path) -> None:
    folder = compile_catalogue(SourceFiles.find(source))
    store.verify(folder)
    path = folder / "products.bin"
    content = bytearray(path.read_bytes())
    content[:50] = b"\xff" * 50
    path.write_bytes(content)
    with pytest.raises(CatalogueError, match=r"products\.bin"):
        store.verify(folder)
    with pytest.raises(CatalogueError, match=r"products\.bin: product 0 is damaged"):
        Catalogue(folder).product(0)


def test_a_folder_that_is_no_catalogue(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="not a compiled catalogue"):
        open_catalogue(tmp_path)
    with pytest.raises(CatalogueError, match="himac data get webshop"):
        catalogue_for(str(tmp_path))
    with pytest.raises(CatalogueError, match="there is no such folder"):
        catalogue_for(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{", "ends in the middle|not valid JSON"),
        ("", "ends in the middle"),
        ("{}", "expected a JSON array"),
        ("[]", "holds no product"),
        ('[{"asin": "B0"}]', "row 0 is not a product"),
        ("[1, 2]", "row 0 is not a product"),
        ('[{"asin": "B0", "pricing": "dear"}]', "holds no '\\$'"),
        (b"\xff\xfe[", "not UTF-8"),
    ],
)
def test_malformed_product_files_are_named(source: Path, content: Any, message: str) -> None:
    path = source / "items_shuffle_1000.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CatalogueError, match=message) as caught:
        catalogue_for(str(source))
    assert path.name in str(caught.value)


def test_a_full_disk_leaves_nothing_and_says_what_to_do(source: Path, tmp_path: Path) -> None:
    """A limit on file size stands for the full disk: writes fail in the middle of the build."""
    program = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from himac_envs.webshop.catalogue import SourceFiles, compile_catalogue\n"
        "from himac_envs.webshop.errors import CatalogueError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try:\n"
        "    compile_catalogue(SourceFiles.find(Path(sys.argv[1])), root=Path(sys.argv[2]))\n"
        "except CatalogueError as error:\n"
        "    print(error)\n"
    )
    root = tmp_path / "root"
    done = subprocess.run(
        [sys.executable, "-c", program, str(source), str(root)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert "free some space or set HIMAC_HOME" in done.stdout, done.stderr
    assert [p.name for p in root.iterdir() if p.is_dir()] == []
    # With space again, the same call succeeds.
    assert Catalogue(compile_catalogue(SourceFiles.find(source), root=root)).size == 120


def test_two_processes_that_build_at_once_build_one(source: Path, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from himac_envs.webshop.catalogue import SourceFiles, compile_catalogue, open_catalogue\n"
        "folder = compile_catalogue(SourceFiles.find(Path(sys.argv[1])), root=Path(sys.argv[2]))\n"
        "print(folder, open_catalogue(folder).size, folder.stat().st_ino)\n"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(source), str(tmp_path / "root")],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for _ in range(3)
    ]
    answers = {process.communicate(timeout=120)[0] for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(answers) == 1  # the same folder: nobody replaced it under another


def test_what_a_killed_build_left_is_swept(source: Path, tmp_path: Path) -> None:
    files, root = SourceFiles.find(source), tmp_path / "root"
    folder = compile_catalogue(files, root=root)
    shutil.rmtree(folder)
    left = root / f"{folder.name}.dead.part"
    left.mkdir()
    (left / "products.bin").write_bytes(b"x")
    compile_catalogue(files, root=root)
    assert not left.exists() and folder.is_dir()


def test_a_deleted_store_is_compiled_again_in_the_same_process(source: Path) -> None:
    first = catalogue_for(str(source))
    shutil.rmtree(first.folder)
    assert catalogue_for(str(source)).size == 120


def test_goals_that_the_data_does_not_have(source: Path) -> None:
    with pytest.raises(CatalogueError, match=r"no human goals.*items_human_ins\.json"):
        gym.make("HiMAC-WebShop-Flat-v0", data=str(source), goals="human", split="all")
    with pytest.raises(ValueError, match="choose 'synthetic' or 'human'"):
        gym.make("HiMAC-WebShop-Flat-v0", data=str(source), goals="robot", split="all")


def test_goals_of_a_large_catalogue_are_kept_on_disk(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from himac_envs.webshop import goals as module

    catalogue = catalogue_for(str(source))
    drawn = Goals(catalogue)
    monkeypatch.setattr(module, "_KEEP_FROM", 0)
    kept, again = Goals(catalogue), Goals(catalogue)
    assert list(drawn) == list(kept) == list(again)
    assert any(p.name.startswith("goals-") for p in catalogue.folder.parent.iterdir())


def test_title_noun_tables_that_are_none(source: Path, tmp_path: Path) -> None:
    for content in (b"[1]", b"{", b'{"a": 1}'):
        path = tmp_path / "nouns.json"
        path.write_bytes(content)
        env = gym.make(
            "HiMAC-WebShop-Flat-v0", data=str(source), split="all", title_nouns=str(path)
        ).unwrapped
        env.reset(options={"task_id": "0"})
        with pytest.raises(CatalogueError, match=r"nouns\.json: expected a JSON object"):
            env.reward_of(env.catalogue.product(0).asin, {})


def test_cleaning_rules() -> None:
    base, _ = ShopGenerator().row(0)
    rows = [
        {**base, "asin": "nan"},
        {**base, "asin": "B" * 11},
        {**base, "asin": "B1", "pricing": "$1,234.50"},
        {**base, "asin": "B1", "name": "a second one"},
        {**base, "asin": "B2", "pricing": None, "small_description": "one line"},
        {
            **base,
            "asin": "B3",
            "pricing": "$16.99 - $26.5 - $30",
            "customization_options": {
                "Color": [{"value": " Red/Blue "}, {"value": "GREEN", "image": "g.jpg"}],
                "Size": None,
            },
        },
    ]
    one, two, three = clean_products(rows, {"B2": {}}, {})
    assert (one.asin, one.prices, one.price_tag) == ("B1", (1234.5,), "$1234.5")
    assert (two.prices, two.price_tag, two.bullets) == ((100.0,), "$100.0", ("one line",))
    assert two.attributes == ("DUMMY_ATTR",)
    assert (three.prices, three.price_tag) == ((16.99, 26.5), "$16.99 to $26.5")
    assert three.options == {"color": ("red | blue", "green")}
    assert three.option_images["green"] == "g.jpg"
    assert len(list(clean_products(rows, {}, {}, limit=3))) == 1
