"""Where images may be cached, through the command line: not among the photographs; and why they are not cached."""

import shutil
from pathlib import Path

import pytest

from bldml.dataset.cache.writer import ShardWriter
from tests.support import THREE_LAYERS, Bldml

TRIAL = ("--trainer.fast_dev_run=1",)


@pytest.fixture
def data(tmp_path: Path, leaves: Path) -> Path:
    return Path(shutil.copytree(leaves, tmp_path / "data"))


def files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize("place", ["", "BLD", "BLD/deep/down", "pixels", ".pixels"])
def test_among_the_photographs(place: str, data: Path, bldml: Bldml) -> None:
    before = files(data)
    outcome = bldml("fit", *THREE_LAYERS, *TRIAL, f"--data.root={data}", f"--data.cache_dir={data / place}")
    assert outcome.code == 1
    assert outcome.mistake == "cache-among-photographs"
    assert f"(--data.cache_dir) {'is inside' if place else 'is'} the photograph folder" in outcome.err
    assert f"such as --data.cache_dir {data.parent / '.bldml_cache'}, or omit --data.cache_dir" in outcome.err
    assert files(data) == before
    assert not Path("lightning_logs").exists()


def test_by_a_link_or_the_environment(data: Path, bldml: Bldml, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files(data)
    Path("link").symlink_to(data / "No_BLD")
    outcome = bldml("fit", *THREE_LAYERS, *TRIAL, f"--data.root={data}", "--data.cache_dir=link/pixels")
    assert outcome.mistake == "cache-among-photographs"
    assert (outcome.fields["path"], outcome.fields["root"]) == ("link/pixels", data)
    monkeypatch.setenv("BLDML_CACHE", str(data / "BLD"))
    outcome = bldml("fit", *THREE_LAYERS, *TRIAL, f"--data.root={data}")
    assert outcome.mistake == "cache-among-photographs"
    assert outcome.fields["path"] == str(data / "BLD")
    assert "unset the variable" in outcome.err
    assert files(data) == before
    outcome = bldml("fit", *THREE_LAYERS, *TRIAL, f"--data.root={data}", "--data.cache=off")
    assert outcome.code == 0, outcome.err


def test_a_folder_around_the_photographs_or_beside_them(data: Path, bldml: Bldml) -> None:
    for place in (data.parent, data.parent / "data_pixels", Path("pixels")):
        outcome = bldml("fit", *THREE_LAYERS, *TRIAL, f"--data.root={data}", f"--data.cache_dir={place}")
        assert outcome.code == 0, outcome.err
        assert list(place.glob("*px-*"))


def test_a_manifest_may_start_from_a_folder_that_holds_more(data: Path, bldml: Bldml) -> None:
    rows = [f"data/{p.parent.name}/{p.name},{p.parent.name}" for p in sorted(data.rglob("*.jpg"))]
    splits = ("train", "val", "test")
    text = "".join(f"{row},{splits[number % 3]}\n" for number, row in enumerate(rows))
    (data.parent / "all.csv").write_text(f"path,label,split\n{text}")
    options = [*THREE_LAYERS, *TRIAL, f"--data.manifest={data.parent / 'all.csv'}"]
    for place in (data / "BLD" / "pixels", data.parent):
        outcome = bldml("fit", *options, f"--data.cache_dir={place}")
        assert outcome.code == 1
        assert outcome.mistake == "cache-among-photographs"
    outcome = bldml("fit", *options, f"--data.cache_dir={data.parent / 'pixels'}")
    assert outcome.code == 0, outcome.err


def test_why_images_are_not_cached_names_the_folder(data: Path, bldml: Bldml, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that goes while it is written to, a file of that name, a disk without room."""
    fit = ["fit", *THREE_LAYERS, *TRIAL, f"--data.root={data}", "--data.cache_dir=pixels/here"]

    def warning(message: str) -> str:
        lines = [line for line in message.splitlines() if "decoded images are not cached" in line]
        assert len(lines) == 1
        return lines[0]

    finish = ShardWriter.finish

    def too_late(writer: ShardWriter) -> Path | None:
        shutil.rmtree(writer.folder)
        return finish(writer)

    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "finish", too_late)
        outcome = bldml(*fit)
    assert outcome.code == 0, outcome.err
    assert "again: pixels/here: No such file or directory. --data" in warning(outcome.out + outcome.err)
    with monkeypatch.context() as patch:
        patch.setattr("bldml.dataset.cache.writer.SPARE", 2**70)
        outcome = bldml(*fit)
    assert outcome.code == 0, outcome.err
    assert "again: pixels/here: " in warning(outcome.out + outcome.err)
    assert " are free. --data" in warning(outcome.out + outcome.err)
    shutil.rmtree("pixels")
    Path("pixels").write_text("a file")
    outcome = bldml(*fit)
    assert outcome.code == 0, outcome.err
    assert "again: pixels/here cannot be written to. --data" in warning(outcome.out + outcome.err)
