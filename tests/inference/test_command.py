"""`bldml explain` as a user meets it."""

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bldml.dataset.images import load_rgb
from bldml.run.predictions import read_predictions
from tests.support import Bldml


@pytest.fixture
def best(run: Path) -> Path:
    return run / "checkpoints" / "best.ckpt"


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


@pytest.fixture
def photographs(leaves: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    for name in ("BLD", "No_BLD"):
        (folder / name).mkdir(parents=True)
        for path in sorted((leaves / name).iterdir())[:3]:
            shutil.copy(path, folder / name)
    return folder


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "explanations.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_probabilities_are_those_of_predict(best: Path, photographs: Path, bldml: Bldml) -> None:
    before = contents(photographs)
    outcome = bldml("explain", "--ckpt_path", best, photographs, "--output=out", "--device=cpu")
    assert outcome.code == 0, outcome.err
    options = ("--output=predicted", "--trainer.accelerator=cpu", "--trainer.precision=bf16-mixed", "--model.lr=1")
    predicting = bldml("predict", "--ckpt_path", best, "--data.root", photographs, *options)
    assert predicting.code == 0
    unused = "Warning: predict does not use --model.lr, --trainer.precision."
    assert unused in predicting.out + predicting.err
    rows = table(Path("out"))
    predicted = {p.path: p.probability for p in read_predictions(Path("predicted/predictions.csv"))}
    assert {row["path"] for row in rows} == set(predicted)
    for row in rows:
        assert float(row["probability"]) == pytest.approx(predicted[row["path"]], abs=1e-5)
        with Image.open(Path("out") / row["overlay"]) as picture, Image.open(photographs / row["path"]) as original:
            assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", original.size)
    written = {path.name for path in Path("out").iterdir()}
    assert written == {"contact_sheet.png", "explanations.csv", "progress.jsonl", *(row["overlay"] for row in rows)}
    assert contents(photographs) == before


def test_rotated_photograph_gets_an_upright_overlay_without_exif(
    best: Path, photographs: Path, tmp_path: Path, bldml: Bldml
) -> None:
    upright = load_rgb(next((photographs / "BLD").iterdir())).resize((120, 60))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "SecretCamera"  # to be turned by 90 degrees clockwise
    folder = tmp_path / "rotated"
    folder.mkdir()
    upright.transpose(Image.Transpose.ROTATE_90).save(folder / "a.png", exif=exif)
    upright.save(folder / "b.png")
    assert bldml("explain", "--ckpt_path", best, folder, "--output=out").code == 0
    turned, plain = table(Path("out"))
    data = [(Path("out") / row["overlay"]).read_bytes() for row in (turned, plain)]
    assert turned["probability"] == plain["probability"]
    assert data[0] == data[1]
    assert not any(mark in data[0] for mark in (b"SecretCamera", b"eXIf", b"tEXt", b"iTXt"))
    with Image.open(Path("out") / turned["overlay"]) as picture:
        assert picture.size == (120, 60)


def test_masks_give_shares(best: Path, photographs: Path, tmp_path: Path, bldml: Bldml) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    first, second, *_ = sorted((photographs / "BLD").iterdir())
    whole = Image.new("RGB", (48, 48), (0, 176, 0))
    half = np.zeros((48, 48, 3), dtype=np.uint8)
    half[:, :24] = (0, 176, 0)
    half[:24, :24] = (255, 0, 0)
    Image.fromarray(half).resize(size_of(second), Image.Resampling.NEAREST).save(masks / f"{second.stem}.png")
    whole.resize(size_of(first)).save(masks / f"{first.stem}_mask.png")
    shutil.rmtree(photographs / "No_BLD")  # their masks would have the same names
    outcome = bldml("explain", "--ckpt_path", best, photographs / "BLD", "--output=out", "--masks", masks)
    assert outcome.code == 0, outcome.err
    assert "2 of 3 photographs have a mask" in outcome.out
    a, b, c = table(Path("out"))
    assert float(a["leaf_area"]) == 1
    assert a["attention_in_leaf"] in ("", "1.0")
    assert float(b["leaf_area"]) == pytest.approx(0.5, abs=0.02)
    assert float(b["lesion_area"]) == pytest.approx(0.25, abs=0.02)
    if b["attention_in_leaf"]:
        assert 0 <= float(b["attention_in_lesion"]) <= float(b["attention_in_leaf"]) <= 1
    assert {c[key] for key in c if "leaf" in key or "lesion" in key} == {""}


def test_hostile_names(best: Path, photographs: Path, tmp_path: Path, bldml: Bldml) -> None:
    source = next((photographs / "BLD").iterdir())
    folder = tmp_path / "hostile"
    names = [
        b"=1+1.jpg",
        "\uff1d1.jpg".encode(),
        b"caf\xe9.jpg",
        b"<img onerror=x>.jpg",
        b'a\nb,".jpg',
        b"x" * 251 + b".jpg",
        b"-rf.jpg",
    ]
    for name in [*names, b"one/same.jpg", b"two/same.jpg", "مرحبا.jpg".encode()]:
        path = Path(os.fsdecode(os.path.join(os.fsencode(folder), name)))  # noqa: PTH118  # bytes
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, path)
    outcome = bldml("explain", "--ckpt_path", best, folder, "--output=out")
    assert outcome.code == 0, outcome.err
    rows = table(Path("out"))
    assert len({row["overlay"] for row in rows}) == len(rows) == 10
    assert {"./=1+1.jpg", "'\uff1d1.jpg"} < {row["path"] for row in rows}
    for row in rows:
        assert not row["path"].startswith(("=", "+", "-", "@"))
        assert (Path("out") / row["overlay"]).is_file()
        assert row["overlay"].isascii()
        assert not set(row["overlay"]) & set("<>=\"' \n")


def test_masks_of_one_name_for_two_photographs(best: Path, tmp_path: Path, photographs: Path, bldml: Bldml) -> None:
    source = next((photographs / "BLD").iterdir())
    for folder in ("a", "b"):
        (tmp_path / "two" / folder).mkdir(parents=True)
        shutil.copy(source, tmp_path / "two" / folder / "leaf.jpg")
    mask = Image.new("RGB", size_of(source), (0, 176, 0))
    Path("masks").mkdir()
    mask.save("masks/leaf_mask.png")
    command = ("explain", "--ckpt_path", best, tmp_path / "two", "--masks=masks", "--output=out")
    outcome = bldml(*command)
    assert outcome.mistake == "mask-ambiguous"
    for folder in ("a", "b"):
        (Path("masks") / folder).mkdir()
        mask.save(f"masks/{folder}/leaf_mask.png")
    outcome = bldml(*command)
    assert outcome.code == 0, outcome.err
    assert "2 of 2 photographs" in outcome.out


def test_one_photograph(best: Path, photographs: Path, bldml: Bldml) -> None:
    path = next((photographs / "BLD").iterdir())
    outcome = bldml("explain", path, "--ckpt_path", best)
    assert outcome.code == 0
    assert "Explained 1 photograph; positive class: BLD." in outcome.out
    assert [row["path"] for row in table(Path("cams"))] == [path.name]


def test_an_interrupted_command_is_resumed(best: Path, photographs: Path, bldml: Bldml) -> None:
    command = ("explain", best, photographs, "--device=cpu")
    Path("whole").mkdir()
    Path("whole/.bldml-0123456789abcdef.tmp").touch()  # of a process that was killed while it wrote its first file
    fresh = bldml(*command, "--output=whole")
    assert "Explaining 6 photographs: about 1 MB in whole." in fresh.out
    whole = contents(Path("whole"))
    # As a power failure leaves it: two images are complete, a third is but was not recorded, the last line is torn.
    shutil.copytree("whole", "out")
    lines = Path("out/progress.jsonl").read_text().splitlines()
    Path("out/progress.jsonl").write_text("\n".join([*lines[:3], lines[3][:20]]))
    for name in ("contact_sheet.png", "explanations.csv", *(row["overlay"] for row in table(Path("whole"))[3:])):
        (Path("out") / name).unlink()
    done = [Path("out") / row["overlay"] for row in table(Path("whole"))[:2]]
    before = [path.stat().st_mtime_ns for path in done]
    outcome = bldml(*command, "--output=out")
    assert outcome.code == 0, outcome.err
    assert "2 photographs were explained before." in outcome.out
    assert "Explaining 4 photographs" in outcome.out
    assert [path.stat().st_mtime_ns for path in done] == before
    assert {path.name: data for path, data in contents(Path("out")).items()} == {
        path.name: data for path, data in whole.items()
    }
    again = bldml(*command, "--output=out")
    assert "6 photographs were explained before." in again.out
    assert "Explaining" not in again.out


def test_what_has_changed_is_explained_again(best: Path, photographs: Path, bldml: Bldml) -> None:
    command = ("explain", best, photographs, "--output=out", "--device=cpu")
    assert bldml(*command).code == 0
    first, second, third, *_ = table(Path("out"))
    (photographs / first["path"]).unlink()
    shutil.copy(photographs / third["path"], photographs / second["path"])
    shutil.copy(photographs / third["path"], photographs / "new.jpg")
    (Path("out") / third["overlay"]).write_bytes(b"")
    outcome = bldml(*command)
    assert "3 photographs were explained before." in outcome.out
    after = {row["path"]: row for row in table(Path("out"))}
    assert first["path"] not in after
    assert after[second["path"]]["probability"] == after["new.jpg"]["probability"] == third["probability"]
    assert {row["overlay"] for row in after.values()} == {path.name for path in Path("out").glob("0*.png")}
    assert sorted(int(row["number"]) for row in after.values()) == [1, 2, 3, 4, 5, 6]
    other = bldml("explain", best.with_name("last.ckpt"), photographs, "--output=out")
    assert (other.mistake, other.fields["key"]) == ("output-of-other-images", "checkpoint")
    assert bldml(*command, "--size=48").fields["key"] == "size"


def test_jpeg_and_size(best: Path, photographs: Path, bldml: Bldml) -> None:
    outcome = bldml("explain", best, photographs / "BLD", "--format=jpeg", "--size=48")
    assert outcome.code == 0, outcome.err
    for name in (row["overlay"] for row in table(Path("cams"))):
        with Image.open(Path("cams") / name) as picture:
            assert (picture.format, max(picture.size)) == ("JPEG", 48)
    assert Path("cams/contact_sheet.jpg").is_file()


def test_unreadable_photographs_are_left_out_on_request(best: Path, photographs: Path, bldml: Bldml) -> None:
    path = min((photographs / "BLD").iterdir())
    path.write_bytes(path.read_bytes()[:500])
    assert bldml("explain", best, photographs).mistake == "photographs-unreadable"
    assert not Path("cams").exists()
    outcome = bldml("explain", best, photographs, "--unreadable=exclude")
    assert outcome.code == 0, outcome.err
    assert "1 photograph could not be read: see cams/excluded.csv." in outcome.err
    assert len(table(Path("cams"))) == 5
    name = str(path.relative_to(photographs))
    assert Path("cams/excluded.csv").read_text().startswith(f'path,reason\n{name},"cannot be decoded')
