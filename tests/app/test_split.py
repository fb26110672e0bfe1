"""`split` through the command line, and a fit with what it wrote."""

import csv
import json
import re
import shlex
import shutil
from collections import defaultdict
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from PIL import ExifTags, Image, ImageOps

from bldml.dataset.duplicates.leaks import KnownPhotograph, Leak, find_leaks
from bldml.dataset.manifest import read_manifest
from bldml.dataset.synthetic.leaves import write_leaves
from bldml.dataset.verify import verify
from tests.support import ALONE, SMALL, Bldml


@pytest.fixture
def data(tmp_path: Path, leaves: Path) -> Path:
    """Drawn leaves of the test's own: BLD and No_BLD, 30 each, leaf_0001.jpg and so on."""
    return Path(shutil.copytree(leaves, tmp_path / "data"))


def rows(manifest: Path) -> dict[str, dict[str, str]]:
    with manifest.open(encoding="utf-8", newline="") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def assignments(manifest: Path) -> dict[str, tuple[str, str]]:
    return {name: (row["split"], row.get("fold", "")) for name, row in rows(manifest).items()}


def groups_are_whole(manifest: Path) -> None:
    found = defaultdict(set)
    for row in rows(manifest).values():
        found[row["group"]].add((row["split"], row.get("fold", "")))
    assert all(len(distinct) == 1 for distinct in found.values())


def leaks(manifest: Path, data: Path) -> list[Leak]:
    """What the audit would find."""
    collection = read_manifest(manifest, data)
    return find_leaks(
        [
            KnownPhotograph(
                found.sample.name, split, found.sample.class_name, found.digest, found.phash, found.metadata
            )
            for split, samples in collection.splits.items()
            for found in verify(samples, 128, 1)
        ]
    )


def stamp(path: Path, camera: str, taken: datetime) -> None:
    """Write the photograph again with a camera and a time."""
    with Image.open(path) as image:
        exif = Image.Exif()
        exif[ExifTags.Base.Model] = camera
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = f"{taken:%Y:%m:%d %H:%M:%S}"
        image.save(path, exif=exif)


def test_a_folder_cut_at_one_size_is_called_an_interrupted_copy(data: Path, bldml: Bldml) -> None:
    for path in sorted(data.rglob("*.jpg"))[:4]:
        path.write_bytes(path.read_bytes()[:1024])
    outcome = bldml("split", data)
    assert outcome.code == 0
    assert "4 of these files have exactly the same size, 1,024 bytes. Probably a copy was interrupted" in outcome.out
    for path in data.rglob("*.jpg"):
        path.write_bytes(path.read_bytes()[:1024])
    outcome = bldml("split", data, "--output=none.csv")
    assert outcome.code == 1
    assert "None of the 60 photographs" in outcome.err
    assert "60 of these files have exactly the same size" in outcome.err


def test_a_plain_split(data: Path, bldml: Bldml) -> None:
    outcome = bldml("split", data)
    assert (outcome.code, outcome.err) == (0, "")
    manifest = Path("splits.csv")
    assert manifest.read_text().splitlines()[0] == "path,label,split,group,sha256"
    collection = read_manifest(manifest, data)
    assert {split: dict(count) for split, count in collection.counts().items()} == {
        "train": {"BLD": 18, "No_BLD": 18},
        "val": {"BLD": 6, "No_BLD": 6},
        "test": {"BLD": 6, "No_BLD": 6},
    }
    assert len(collection.digests) == 60
    table = [line.split() for line in outcome.out.splitlines() if line.strip().startswith("train")]
    assert table == [["train", "36", "60.0", "%", "60.0", "%", "18", "(60.0", "%)", "18", "(60.0", "%)", "36"]]
    command = f"  python -m bldml fit --data.root {data} --data.manifest splits.csv --data.positive_class BLD\n"
    assert outcome.out.endswith(f"Wrote splits.csv. Next, with BLD as the positive class:\n{command}")
    assert "bursts may have been missed" in outcome.out


def test_a_fit_with_a_fold(data: Path, bldml: Bldml) -> None:
    assert bldml("split", data, "--folds=3", "--test=0.1").code == 0
    options = [*SMALL, f"--data.root={data}", "--trainer.max_epochs=1", "--test_after_fit=false"]
    fit = bldml("fit", *options, "--data.manifest=splits.csv", "--data.fold=1", "--run_name=fold_1")
    assert fit.code == 0, fit.err
    run = Path("lightning_logs/fold_1")
    folds = {name: fold for name, (_, fold) in assignments(Path("splits.csv")).items()}
    for name, row in rows(run / "splits.csv").items():
        assert row["split"] == {"": "test", "1": "val"}.get(folds[name], "train")
    # An evaluation takes the fold from the checkpoint, and no other.
    checkpoint = run / "checkpoints" / "best.ckpt"
    outcome = bldml("validate", "--ckpt_path", checkpoint, "--report=false")
    assert outcome.code == 0, outcome.err
    assert "differ from those of the training run" not in outcome.out + outcome.err
    outcome = bldml("validate", "--ckpt_path", checkpoint, "--data.fold=2")
    assert outcome.code == 2
    assert (outcome.mistake, outcome.fields["key"]) == ("splits-differ", "fold")
    # Another folder has no folds.
    outcome = bldml("test", "--ckpt_path", checkpoint, f"--data.root={data}", "--data.manifest", run / "splits.csv")
    assert outcome.code == 0, outcome.err


def test_a_run_of_a_fold_says_so_and_repeats_itself(data: Path, bldml: Bldml) -> None:
    assert bldml("split", data, "--folds=3", "--val=0", "--test=0.1").code == 0
    options = [*SMALL, f"--data.root={data}", "--trainer.max_epochs=1"]
    fit = bldml("fit", *options, "--data.manifest=splits.csv", "--data.fold=0")
    assert fit.code == 0, fit.err
    (run,) = Path("lightning_logs").iterdir()
    assert re.fullmatch(r"mobilenet_v2_x0_35_fold-0_\d{8}-\d{6}", run.name)
    assert bldml("report", run).code == 0
    page = (run / "report.html").read_text()
    assert "the folds of a manifest (fold 0 is val, the other folds are train)." in page
    test = run / "evaluations" / "test"
    before = (test / "metrics.json").read_text()
    assert json.loads((test / "provenance.json").read_text())["fold"] == 0
    # Its checkpoint knows the fold.
    outcome = bldml("test", "--ckpt_path", run / "checkpoints" / "best.ckpt", "--report=false")
    assert outcome.code == 0, outcome.err
    assert (test / "metrics.json").read_text() == before
    assert json.loads((test / "provenance.json").read_text())["fold"] == 0
    # Its splits are a manifest without folds, by which the same run is made again.
    own = ["--data.manifest", run / "splits.csv", "--run_name=again"]
    again = bldml("fit", "--config", run / "config.yaml", *own, "--data.fold=null")
    assert again.code == 0, again.err
    for name in ("splits.csv", "history.csv", "evaluations/test/predictions.csv", "evaluations/val/predictions.csv"):
        assert (Path("lightning_logs/again") / name).read_bytes() == (run / name).read_bytes()
    provenance = json.loads(Path("lightning_logs/again/evaluations/test/provenance.json").read_text())
    assert provenance["fold"] is None


def test_folds_that_are_not_there(data: Path, bldml: Bldml) -> None:
    assert bldml("split", data).code == 0
    options = [*SMALL, f"--data.root={data}"]
    outcome = bldml("fit", *options, "--data.manifest=splits.csv", "--data.fold=0")
    assert outcome.mistake == "fold-unknown"
    outcome = bldml("fit", *options, "--data.fold=0")
    assert (outcome.code, outcome.mistake) == (2, "fold-without-manifest")
    assert not Path("lightning_logs").exists()


def test_a_fit_refuses_photographs_that_have_changed(data: Path, bldml: Bldml) -> None:
    assert bldml("split", data).code == 0
    changed = data / "BLD" / "leaf_0007.jpg"
    with Image.open(changed) as image:
        ImageOps.mirror(image).save(changed)
    outcome = bldml("fit", *SMALL, f"--data.root={data}", "--data.manifest=splits.csv")
    assert outcome.mistake == "photographs-changed-since-split"
    assert outcome.fields["found"] == ["BLD/leaf_0007.jpg"]
    assert not Path("lightning_logs").exists()
    # As the message advises.
    before = assignments(Path("splits.csv"))
    outcome = bldml("split", data)
    assert "the content of 1 photograph has changed: BLD/leaf_0007.jpg" in outcome.out
    assert assignments(Path("splits.csv")) == before
    assert (
        bldml("fit", *SMALL, f"--data.root={data}", "--data.manifest=splits.csv", "--trainer.fast_dev_run=1").code == 0
    )


def test_the_same_photograph_in_other_shapes_stays_together(data: Path, bldml: Bldml) -> None:
    """Half size, turned, mirrored, recompressed, copied: each beside a photograph of another name."""
    made = {}
    for number in range(1, 31):
        for kind in ("BLD", "No_BLD"):
            source = data / kind / f"leaf_{number:04}.jpg"
            target = data / kind / f"again_{(number * 7) % 31:04}.jpg"
            made[f"{kind}/{target.name}"] = f"{kind}/{source.name}"
            with Image.open(source) as image:
                if number % 4 == 0:
                    image.resize((image.width // 2, image.height // 2)).save(target, quality=95)
                elif number % 4 == 1:
                    image.transpose(Image.Transpose.ROTATE_90).save(target, quality=95)
                elif number % 4 == 2:
                    ImageOps.mirror(image).save(target, quality=60)
                else:
                    shutil.copy(source, target)
    outcome = bldml("split", data, "--group=none", "--folds=4")
    assert outcome.code == 0, outcome.err
    found = assignments(Path("splits.csv"))
    assert len(found) == 120
    apart = [name for name, original in made.items() if found[name] != found[original]]
    assert not apart
    assert leaks(Path("splits.csv"), data) == []
    groups_are_whole(Path("splits.csv"))


def test_bursts_stay_together(data: Path, bldml: Bldml) -> None:
    """Three photographs every five seconds, then an hour's pause; of both classes in turn."""
    burst_of = {}
    for number in range(1, 31):
        for kind, camera in (("BLD", "A"), ("No_BLD", "B")):
            start = datetime(2024, 6, 1) + timedelta(hours=number // 3, seconds=5 * (number % 3))
            stamp(data / kind / f"leaf_{number:04}.jpg", camera, start)
            burst_of[f"{kind}/leaf_{number:04}.jpg"] = (camera, number // 3)
    outcome = bldml("split", data, "--val=0.3")
    assert outcome.code == 0, outcome.err
    assert "60 of 60 photographs have an EXIF time" in outcome.out
    found = defaultdict(set)
    for name, row in rows(Path("splits.csv")).items():
        found[burst_of[name]].add((row["split"], row["group"]))
    assert all(len(distinct) == 1 for distinct in found.values())
    assert len(found) == 22
    assert leaks(Path("splits.csv"), data) == []
    # As the help says.
    outcome = bldml("split", data, "--gap_seconds=0", "--output=none.csv")
    assert outcome.code == 0, outcome.err
    assert "Burst detection is off (--gap_seconds 0)." in outcome.out
    assert len({row["group"] for row in rows(Path("none.csv")).values()}) == 60
    # Four seconds between two photographs are longer than asked for.
    assert bldml("split", data, "--gap_seconds=4", "--output=loose.csv").code == 0
    assert len({row["group"] for row in rows(Path("loose.csv")).values()}) == 60
    assert {leak.kind for leak in leaks(Path("loose.csv"), data)} == {"burst"}


def test_groups_from_a_table(data: Path, bldml: Bldml) -> None:
    """Trees of four neighbouring leaves of both classes; a copy joins two of them."""
    shutil.copy(data / "BLD" / "leaf_0001.jpg", data / "BLD" / "zzz.jpg")
    tree_of = {f"{kind}/leaf_{n:04}.jpg": f"tree {n // 4}" for kind in ("BLD", "No_BLD") for n in range(1, 31)}
    tree_of["BLD/zzz.jpg"] = "tree 7"
    table = Path("tree_id.csv")
    table.write_text("path,group\n" + "".join(f"{k},{v}\n" for k, v in tree_of.items()) + "BLD/gone.jpg,tree 1\n")
    outcome = bldml("split", data, "--group=tree_id.csv")
    assert outcome.code == 0, outcome.err
    groups_are_whole(Path("splits.csv"))
    found = rows(Path("splits.csv"))
    assert {row["group"] for row in found.values()} == {"tree 0 + tree 7", *(f"tree {k}" for k in range(1, 7))}
    assert "tree 0 and tree 7 were joined: identical files (BLD/leaf_0001.jpg, BLD/zzz.jpg)" in outcome.out
    assert "1 photograph in tree_id.csv is not in" in outcome.out
    table.write_text("path,group\nBLD/leaf_0001.jpg,a\n")
    outcome = bldml("split", data, "--group=tree_id.csv", "--output=other.csv")
    assert outcome.mistake == "group-table-wrong"
    assert not Path("other.csv").exists()


def test_a_manifest_as_a_spreadsheet_writes_it(data: Path, bldml: Bldml) -> None:
    """It is read and said; the run writes the true names, so that it is evaluated and resumed as others are."""
    assert bldml("split", data).code == 0
    found = [(path, row["label"], row["split"]) for path, row in rows(Path("splits.csv")).items()]
    names = {"train": "Training", "val": "valid", "test": "Test"}
    lines = [
        f"{data.name}\\{path.replace('/', chr(92)).replace('.jpg', '.JPG')};{label};{names[s]}"
        for path, label, s in found
    ]
    Path("sheet.csv").write_text("File;Class;Set\n" + "\n".join(lines) + "\n", encoding="utf-16")
    options = [*SMALL, f"--data.root={data}", "--data.manifest=sheet.csv", "--trainer.max_epochs=1", "--run_name=sheet"]
    outcome = bldml("fit", *options)
    assert outcome.code == 0, outcome.err
    said = (
        "was read as UTF-16, with semicolons between cells, with the column File as path, Class as label, Set as split."
    )
    for text in (
        said,
        "Training was read as train in 36 rows, valid as val in 12",
        "60 paths were read in other capitals than the file.",
    ):
        assert text in outcome.out + outcome.err
    run = Path("lightning_logs/sheet")
    assert {(path, row["label"], row["split"]) for path, row in rows(run / "splits.csv").items()} == set(found)
    assert bldml("test", run, "--report=false").code == 0
    outcome = bldml("audit", *ALONE, data, "--manifest=sheet.csv")
    assert said in outcome.out
    # A table of groups is read in the same way.
    Path("trees.csv").write_text("FILE\tGroup\n" + "".join(f"x:\\{p.upper()}\t{p[-5]}.0\n" for p, _, _ in found))
    outcome = bldml("split", data, "--group=trees.csv", "--output=trees_out.csv")
    assert outcome.code == 0, outcome.err
    assert "The table of groups trees.csv was read with tabs between cells" in outcome.out
    assert "60 paths were read in other capitals, or without folders" in outcome.out


def test_labels_in_a_table_of_another_program(data: Path, bldml: Bldml) -> None:
    """One folder of photographs, and a table of names and classes as Kaggle, Roboflow and others write it."""
    flat = data.parent / "my leaves"
    flat.mkdir()
    lines = ["id, BLD, No_BLD,group"]
    for path in sorted(data.rglob("*.jpg"))[10:50]:
        name = f"{path.parent.name}_{path.stem}x"
        path.rename(flat / f"{name}.jpg")
        is_bld = path.parent.name == "BLD"
        lines.append(f"{name}, {int(is_bld)}, {int(not is_bld)},tree {len(lines) // 4}")
    (flat / "train.csv").write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
    outcome = bldml("split", flat)
    assert outcome.code == 1
    command = outcome.err.partition("of photographs: ")[2].strip().rstrip(".")
    outcome = bldml(*shlex.split(command)[3:], "--group=none")
    assert outcome.code == 0
    assert "the label from the columns BLD, No_BLD: the one that has 1" in outcome.out
    assert "1 photograph is not in the manifest" in outcome.out
    assert "Groups of the manifest: 10." in outcome.out
    found = rows(Path("splits.csv"))
    assert len(found) == 39
    assert all(name.startswith(row["label"]) for name, row in found.items())
    groups_are_whole(Path("splits.csv"))
    assert len({row["group"] for row in found.values()}) == 10
    # The table is not overwritten.
    outcome = bldml("split", flat, f"--manifest={flat / 'train.csv'}", f"--output={flat / 'train.csv'}")
    assert (outcome.code, (flat / "train.csv").read_text(encoding="utf-8")) == (1, "\n".join(lines[:-1]) + "\n")


def test_groups_from_folders(data: Path, bldml: Bldml) -> None:
    """Two sites with four trees each, below split folders that are not followed."""
    root = data.parent / "sites"
    for number in range(1, 31):
        for kind in ("BLD", "No_BLD"):
            folder = root / ("train", "val")[number % 2] / kind / f"site {number % 8 // 4}" / f"tree {number % 4}"
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(data / kind / f"leaf_{number:04}.jpg", folder)
    outcome = bldml("split", root, "--group=folder")
    assert outcome.code == 0, outcome.err
    assert "Groups by folder: 16 folders, 8 names. Folders with the same name" in outcome.out
    assert {row["group"] for row in rows(Path("splits.csv")).values()} == {
        f"site {site}/tree {tree}" for site in range(2) for tree in range(4)
    }
    groups_are_whole(Path("splits.csv"))
    assert bldml("split", root, "--group=folder:1", "--test=0", "--val=0.5", "--output=sites.csv").code == 0
    assert {row["group"] for row in rows(Path("sites.csv")).values()} == {"site 0", "site 1"}
    outcome = bldml("split", root, "--group=folder:1", "--output=three.csv")
    assert outcome.mistake == "class-in-too-few-groups"
    for group, code in {
        "folder:x": "group-level-wrong",
        "folder:3": "group-level-too-deep",
        "folders": "group-unknown",
    }.items():
        assert bldml("split", root, f"--group={group}").mistake == code


def test_files_named_as_made_from_one_photograph_stay_together(data: Path, bldml: Bldml) -> None:
    """Twenty photographs with three parts each, named by a program; then by numbers, of which the user must know."""
    for kind in ("BLD", "No_BLD"):
        for i, path in enumerate(sorted((data / kind).iterdir())):
            path.rename(path.with_name(f"oak{i // 3}_r0_c{i % 3 * 64}.jpg"))
    outcome = bldml("split", data)
    assert outcome.code == 0, outcome.err
    assert "Photographs kept together: 60 named as made from one photograph." in outcome.out
    assert {row["group"] for row in rows(Path("splits.csv")).values()} == {
        f"{kind}/oak{k}_r0_c0.jpg" for kind in ("BLD", "No_BLD") for k in range(10)
    }
    assert leaks(Path("splits.csv"), data) == []
    for path in data.rglob("*.jpg"):
        path.rename(path.with_name(path.name.replace("r0_c", "").replace("64", "1").replace("128", "2")))
    outcome = bldml("split", data, "--output=asked.csv")
    assert "60 names share 20 beginnings, 3 each: parts of one photograph?" in outcome.out
    assert len({row["group"] for row in rows(Path("asked.csv")).values()}) == 60
    (option,) = re.findall(r"--group '(name:.*)'", outcome.out)
    outcome = bldml("split", data, "--group", option, "--output=told.csv")
    assert outcome.code == 0, outcome.err
    assert "Groups by name: 10 groups of 60 photographs." in outcome.out
    assert {row["group"] for row in rows(Path("told.csv")).values()} == {f"oak{k}" for k in range(10)}
    groups_are_whole(Path("told.csv"))
    outcome = bldml("split", data, "--group", "name:(oak[1-9])", "--output=some.csv")
    assert (
        "Groups by name: 9 groups of 54 photographs. 6 photographs do not match: each is its own group." in outcome.out
    )
    for expression, code in {"(": "wrong", "oak": "without-group", "(birch)": "unmatched"}.items():
        assert bldml("split", data, f"--group=name:{expression}").mistake == f"group-expression-{code}"


def test_old_photographs_keep_their_assignments(data: Path, bldml: Bldml) -> None:
    assert bldml("split", data, "--folds=3").code == 0
    manifest = Path("splits.csv")
    before, text = assignments(manifest), manifest.read_text()
    assert bldml("split", data, "--folds=3", "--seed=9").code == 0
    assert manifest.read_text() == text
    # Two go, one gets another name, twenty come.
    for number in (3, 4):
        (data / "BLD" / f"leaf_{number:04}.jpg").unlink()
        del before[f"BLD/leaf_{number:04}.jpg"]
    (data / "No_BLD" / "leaf_0005.jpg").rename(data / "No_BLD" / "first.jpg")
    before["No_BLD/first.jpg"] = before.pop("No_BLD/leaf_0005.jpg")
    write_leaves(data.parent / "more", images_per_class=10, size=96, seed=77)
    for kind in ("BLD", "No_BLD"):
        shutil.copytree(data.parent / "more" / kind, data / kind / "more")
    outcome = bldml("split", data, "--folds=3")
    assert outcome.code == 0, outcome.err
    assert "58 photographs keep their assignments, 20 are new, 2 are missing; 1 was renamed" in outcome.out
    now = assignments(manifest)
    assert {name: now[name] for name in before} == before
    assert len(now) == 78
    assert {split for name, (split, _) in now.items() if "more" in name} == {"train", "val", "test"}
    # Other folds than before are other assignments.
    outcome = bldml("split", data, "--folds=4")
    assert (outcome.mistake, outcome.fields) == ("folds-differ", {"found": 4, "expected": 3})
    assert assignments(manifest) == now
    outcome = bldml("split", data)
    assert outcome.code == 0, outcome.err
    assert "The 3 folds in splits.csv are kept" in outcome.out
    assert "those of the folds to the 62 photographs outside the test split" in outcome.out
    assert "With --data.fold k, fold k is the val split" in outcome.out
    assert assignments(manifest) == now
    assert bldml("split", data, "--fresh", "--seed=9").code == 0
    assert "fold" not in rows(manifest)["No_BLD/first.jpg"]


def test_a_second_run_without_val_takes_the_folds_that_there_are(data: Path, bldml: Bldml) -> None:
    manifest = Path("splits.csv")
    assert bldml("split", data, "--val=0", "--folds=3").code == 0
    before = assignments(manifest)
    shutil.copy(data / "BLD" / "leaf_0001.jpg", data / "BLD" / "zzz.jpg")
    outcome = bldml("split", data, "--val=0")
    assert outcome.code == 0, outcome.err
    assert "The 3 folds in splits.csv are kept" in outcome.out
    assert assignments(manifest) == before | {"BLD/zzz.jpg": before["BLD/leaf_0001.jpg"]}
    assert {split for split, _ in assignments(manifest).values()} == {"train", "test"}
    # Where there are none, they must be asked for, and nothing is read or written before.
    text = manifest.read_text()
    for options in (["--fresh"], ["--output=other.csv"]):
        outcome = bldml("split", data, "--val=0", *options)
        assert (outcome.mistake, outcome.out) == ("val-empty", "")
    assert manifest.read_text() == text
    assert not Path("other.csv").exists()


def test_a_copy_and_another_label_in_a_second_run(data: Path, bldml: Bldml) -> None:
    assert bldml("split", data).code == 0
    shutil.copy(data / "BLD" / "leaf_0001.jpg", data / "BLD" / "zzz.jpg")
    (data / "BLD" / "leaf_0002.jpg").rename(data / "No_BLD" / "moved.jpg")
    outcome = bldml("split", data)
    assert outcome.code == 0, outcome.err
    assert (
        "60 photographs keep their assignments, 1 is new (1 of them a copy of an old one), 0 are missing; 1 was renamed"
        in outcome.out
    )
    assert "Warning: the label of 1 photograph has changed: No_BLD/moved.jpg (BLD before, No_BLD now)." in outcome.out
    found = assignments(Path("splits.csv"))
    assert found["BLD/zzz.jpg"] == found["BLD/leaf_0001.jpg"]


def test_another_data_set_with_the_same_names(data: Path, bldml: Bldml) -> None:
    assert bldml("split", data).code == 0
    text = Path("splits.csv").read_text()
    other = data.parent / "other"
    write_leaves(other, images_per_class=30, size=96, seed=78)
    outcome = bldml("split", other)
    assert outcome.mistake == "previous-changed"
    assert len(outcome.fields["found"]) == 60
    assert Path("splits.csv").read_text() == text
    assert bldml("split", other, "--fresh").code == 0


def test_the_next_command_works(data: Path, bldml: Bldml) -> None:
    """Through a shell's reading of it, with a name that needs quotes, and a configuration where there is one."""
    root = data.rename(data.parent / "my leaves; $HOME")
    Path("configs").mkdir()
    Path("configs/efficientnet.yaml").write_text("data: {batch_size: 8}\n")
    (root / "No_BLD").rename(root / "A_healthy")
    (root / "BLD" / "cut.jpg").write_bytes((root / "BLD" / "leaf_0001.jpg").read_bytes()[:900])
    outcome = bldml("split", root, "--folds=3", "--class_aliases={A_healthy: healthy}")
    words = shlex.split(outcome.out.splitlines()[-1])
    assert words[:6] == ["python", "-m", "bldml", "fit", "--config", "configs/efficientnet.yaml"]
    assert words[-2:] == ["--data.positive_class", "BLD"]
    small = [option for option in SMALL if "positive_class" not in option]
    fit = bldml(*words[3:], *small, "--trainer.fast_dev_run=1")
    assert fit.code == 0, fit.err


def test_three_classes_have_no_next_command(data: Path, bldml: Bldml) -> None:
    (data / "mites").mkdir()
    for number in range(1, 6):
        (data / "BLD" / f"leaf_{number:04}.jpg").rename(data / "mites" / f"{number}.jpg")
    outcome = bldml("split", data)
    assert outcome.code == 0, outcome.err
    assert "Training needs two classes; found 3 (BLD, No_BLD, mites)." in outcome.out
    assert "bldml fit" not in outcome.out


def test_a_fraction_missed_by_two_points_is_said(data: Path, bldml: Bldml) -> None:
    table = Path("trees.csv")
    trees = {f"{kind}/leaf_{n:04}.jpg": n % 10 for kind in ("BLD", "No_BLD") for n in range(1, 31)}
    table.write_text("path,group\n" + "".join(f"{name},tree {tree}\n" for name, tree in trees.items()))
    assert "could not be met" not in bldml("split", data, f"--group={table}").out
    outcome = bldml("split", data, f"--group={table}", "--val=0.22", "--output=other.csv")
    assert (
        "Proportions that could not be met: train 60.0 % instead of 58.0 %, val 20.0 % instead of 22.0 %."
        in outcome.out
    )


def test_a_file_that_split_did_not_write_stays(data: Path, bldml: Bldml) -> None:
    text = "path,label,split\nBLD/leaf_0001.jpg,BLD,train\n"
    Path("mine.csv").write_text(text)
    for options in ([], ["--fresh"]):
        outcome = bldml("split", data, "--output=mine.csv", *options)
        assert outcome.mistake == "previous-foreign"
        assert Path("mine.csv").read_text() == text
    outcome = bldml("split", data, "--output=nowhere/splits.csv")
    assert outcome.mistake == "output-folder-missing"


def test_photographs_that_cannot_be_read_are_named(data: Path, bldml: Bldml) -> None:
    (data / "BLD" / "cut.jpg").write_bytes((data / "BLD" / "leaf_0001.jpg").read_bytes()[:900])
    (data / "BLD" / "note.txt").write_text("x")
    outcome = bldml("split", data)
    assert outcome.code == 0, outcome.err
    assert "Warning: 1 photograph cannot be read: BLD/cut.jpg (" in outcome.out
    assert "1 × .txt file" in outcome.out
    assert rows(Path("splits.csv"))["BLD/cut.jpg"]["sha256"] == ""
    fit = ["fit", *SMALL, f"--data.root={data}", "--data.manifest=splits.csv", "--trainer.fast_dev_run=1"]
    assert bldml(*fit).code == 1
    assert bldml(*fit, "--data.unreadable=exclude").code == 0


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--test=0.9"], "fractions-wrong"),
        (["--val=0"], "val-empty"),
        (["--folds=1"], "folds-out-of-range"),
        (["--folds=1000000000"], "folds-out-of-range"),
        (["--gap_seconds=-1"], "gap-negative"),
        (["--group=name:" + "(" * 5000], "group-expression-wrong"),
        (["--folds=31"], "class-in-too-few-groups"),
    ],
)
def test_requests_that_cannot_be_met(options: list[str], code: str, leaves: Path, bldml: Bldml) -> None:
    assert bldml("split", leaves, *options).mistake == code
    assert not Path("splits.csv").exists()


def test_other_names_for_classes_and_one_photograph_in_two(data: Path, bldml: Bldml) -> None:
    (data / "BLD").rename(data / "1_BLD")
    shutil.copy(data / "1_BLD" / "leaf_0001.jpg", data / "No_BLD" / "other.jpg")
    outcome = bldml("split", data, "--class_aliases={1_BLD: BLD}")
    assert outcome.code == 0, outcome.err
    assert {row["label"] for row in rows(Path("splits.csv")).values()} == {"BLD", "No_BLD"}
    assert "is in two classes, 1 time: 1_BLD/leaf_0001.jpg and No_BLD/other.jpg" in outcome.out


def test_real_photographs(coffee: Path, bldml: Bldml) -> None:
    """Five hundred coffee leaves: fractions within one photograph, and again the same."""
    outcome = bldml("split", coffee, "--folds=5")
    assert outcome.code == 0, outcome.err
    text = Path("splits.csv").read_text()
    groups_are_whole(Path("splits.csv"))
    collection = read_manifest(Path("splits.csv"), coffee)
    whole = {name: sum(count[name] for count in collection.counts().values()) for name in collection.class_names}
    for split, fraction in {"train": 0.6, "val": 0.2, "test": 0.2}.items():
        assert all(abs(collection.counts()[split][name] - fraction * whole[name]) <= 3 for name in whole)
    assert leaks(Path("splits.csv"), coffee) == []
    assert bldml("split", coffee, "--folds=5", "--fresh", "--output=again.csv").code == 0
    assert Path("again.csv").read_text() == text
