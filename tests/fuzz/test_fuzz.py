"""Files from strangers, by chance but of the structure that gets past the first check. What was found has its own test.

`make fuzz` tries many more; `benchmarks/results/fuzz.json` says how many were tried and what was found.
"""

import io
import json
import shutil
import zipfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from bldml.app.options import load_configuration
from bldml.app.photographs import read_phashes
from bldml.audit.examine import examine_file
from bldml.audit.keypoints import KeypointStore
from bldml.audit.store import Store
from bldml.dataset.cache.format import INDEX, DamagedRow, Rows, read_shards, rows_in_use
from bldml.dataset.cache.writer import ShardWriter
from bldml.dataset.duplicates.phash import PHASH_BYTES
from bldml.dataset.images import UnreadableImage, load_rgb
from bldml.dataset.manifest import read_manifest
from bldml.dataset.metadata import read_metadata
from bldml.dataset.splitting.previous import read_previous
from bldml.run.folder import RunFolder
from bldml.run.ledger import LedgerEntry, append_entry
from bldml.survey.progress import HEAD, SurveyProgress
from bldml.training.checkpoint import KEY, NOVELTY, Checkpoint, read_checkpoint
from bldml.training.module import LeafClassifier
from bldml.training.networks.distribution import plain_novelty
from tests.fuzz.inputs import bent, changed, numbers, plain, repr_of, table, texts
from tests.fuzz.rule import examples, obey, obey_command
from tests.report.test_page import CONFIG, rows_of, write_photographs, write_run
from tests.support import THREE_LAYERS, Bldml
from tests.training.test_checkpoint import FAMILIAR, HEADER

SETTINGS: dict[str, Any] = {
    "model": {"backbone": "three_layers", "lr": 0.001, "weights": "none", "image_size": 64},
    "data": {"root": "nowhere", "positive_class": "BLD", "class_aliases": {"a": "BLD"}, "batch_size": 8, "fold": None},
    "trainer": {"max_epochs": 1, "fast_dev_run": 1, "default_root_dir": "runs", "callbacks": [], "logger": False},
    "unfreezing": {"start_epoch": 1, "stages": 2},
    "early_stopping": {"patience": 5},
    "operating_point": {"maximize": "f1", "sensitivity": None},
    "card": {"intended_use": "Screening.", "contact": None},
    "monitor": "val_loss",
    "run_name": "r",
    "seed_everything": 3,
}
plain_tensors = (
    plain | st.just(torch.zeros(2)) | st.just(torch.ones(3, dtype=torch.complex64)) | st.just(torch.tensor(1))
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the inputs of a target, which are written over one another."""
    return tmp_path_factory.mktemp("fuzz")


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def dumped(value: Any) -> bytes:
    """As YAML, with what YAML cannot hold as text."""
    return str(yaml.dump(value, Dumper=yaml.SafeDumper, allow_unicode=True)).encode("utf-8", "surrogatepass")


def saved(value: Any) -> bytes:
    content = io.BytesIO()
    torch.save(value, content)
    return content.getvalue()


@examples(150)
@given(changed(SETTINGS).map(dumped).flatmap(lambda text: st.just(text) | bent(text)))
def test_yaml(content: bytes) -> None:
    def read() -> None:
        with suppress(yaml.YAMLError, UnicodeDecodeError):
            load_configuration(content.decode("utf-8"))

    obey("yaml", read)


@examples(5)
@given(content=changed(SETTINGS).map(dumped).flatmap(lambda text: st.just(text) | bent(text)))
def test_configuration(content: bytes, bldml: Bldml) -> None:
    put(Path("c.yaml"), content)
    outcome = obey_command(
        "configuration", bldml, "fit", "--config=c.yaml", "--data.root=nowhere", "--trainer.fast_dev_run=1",
        "--trainer.accelerator=cpu",
    )  # fmt: skip
    assert outcome.code


OPTIONS = (
    *("model.lr", "model.weights", "model.image_size", "model", "data", "data.root", "data.class_aliases", "data.fold"),
    *("data.positive_class", "data.batch_size", "data.num_workers", "trainer.max_epochs", "trainer.precision", "card"),
    *("trainer.default_root_dir", "trainer.callbacks", "trainer.logger", "run_name", "seed_everything", "monitor"),
    *("operating_point", "unfreezing.stages", "early_stopping.patience", "config", "resume", "checkpoint_minutes"),
)


@examples(5)
@given(
    options=st.lists(
        st.tuples(
            st.sampled_from(OPTIONS),
            texts | numbers.map(repr_of),
        ),
        min_size=1,
        max_size=2,
    )
)
def test_command_line(options: list[tuple[str, str]], bldml: Bldml) -> None:
    words = [f"--{name}={value}" for name, value in options]
    outcome = obey_command(
        "command line", bldml, "fit", *THREE_LAYERS, "--data.root=nowhere", "--trainer.fast_dev_run=1", *words
    )
    assert outcome.code


PLAIN = (
    ("report", "{}"),
    ("compare", "{}", "b"),
    ("split", "nowhere", "--output={}"),
    ("split", "nowhere", "--output=m.csv", "--group={}"),
    ("split", "nowhere", "--output=m.csv", "--test_fraction={}"),
    ("audit", "{}", "--output=a"),
    ("demo", "d", "--images_per_class={}", "--size=zero"),
    ("export", "{}", "--output=o"),
    ("explain", "{}", "p"),
    ("survey", "{}", "p", "--output=s"),
)


@examples(60)
@given(words=st.sampled_from(PLAIN), value=texts)
def test_plain_command(words: tuple[str, ...], value: str, bldml: Bldml) -> None:
    obey_command("plain command", bldml, *(word.replace("{}", value) for word in words))


CONTENT = {
    "epoch": 3,
    "state_dict": {"network.fc.weight": torch.ones(1, 4)},
    KEY: asdict(HEADER),
    NOVELTY: plain_novelty(FAMILIAR),
}


@examples(120)
@given(changed(CONTENT, plain_tensors))
def test_header(folder: Path, content: Any) -> None:
    try:
        data = saved(content)
    except (OverflowError, UnicodeEncodeError):  # torch itself cannot write it
        return
    obey("header", lambda: read_checkpoint(put(folder / "h.ckpt", data)))


@examples(120)
@given(bent(saved(CONTENT)))
def test_archive(folder: Path, content: bytes) -> None:
    whole = read_checkpoint(put(folder / "whole.ckpt", saved(CONTENT)))
    found = obey("archive", lambda: read_checkpoint(put(folder / "a.ckpt", content)))
    if isinstance(found, Checkpoint):  # refused or equal
        assert found.header == whole.header
        assert all(torch.equal(found.state_dict[key], value) for key, value in whole.state_dict.items())


@st.composite
def zipped(draw: st.DrawFn, content: bytes) -> bytes:
    """An archive with other entries, which the checksums of the archive do not betray."""
    target = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as archive,
        zipfile.ZipFile(target, "w", draw(st.sampled_from([0, 8]))) as out,
    ):
        entries = archive.infolist()
        victim = draw(st.sampled_from(entries)).filename
        for entry in entries:
            data = archive.read(entry)
            if entry.filename == victim:
                data = draw(bent(data) | st.just(bytes(2**20)))
            out.writestr(draw(st.sampled_from([entry.filename] * 9 + [f"../{entry.filename}"])), data)
    return target.getvalue()


@examples(100)
@given(zipped(saved(CONTENT)))
def test_entries(folder: Path, content: bytes) -> None:
    obey("entries", lambda: read_checkpoint(put(folder / "e.ckpt", content)))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A checkpoint that was not trained."""
    torch.manual_seed(1)
    module = LeafClassifier(backbone="three_layers", weights="none", image_size=64)
    header = asdict(HEADER) | {"backbone": "three_layers", "image_size": 64}
    return {"epoch": 0, "state_dict": module.state_dict(), KEY: header}


@pytest.fixture(scope="module")
def few_leaves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("few")
    for number in range(4):
        path = root / ("BLD", "No_BLD")[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.effect_noise((70, 64 + number), 60).convert("RGB").save(path)
    return root


@examples(5)
@given(change=st.data(), verb=st.sampled_from(["predict", "test", "validate"]))
def test_classifier(
    change: st.DataObject, verb: str, classifier: dict[str, Any], few_leaves: Path, bldml: Bldml
) -> None:
    header = change.draw(changed(classifier[KEY]))
    try:
        put(Path("c.ckpt"), saved(classifier | {KEY: header}))
    except (OverflowError, UnicodeEncodeError):
        return
    shutil.rmtree("out", ignore_errors=True)
    obey_command(
        "classifier", bldml, verb, "c.ckpt", few_leaves, "--output=out", "--report=false", "--trainer.accelerator=cpu"
    )


MANIFEST = """path,label,split,group,fold
BLD/0.png,BLD,train,t1,0
No_BLD/1.png,No_BLD,val,t2,1
BLD/2.png,BLD,test,,2
No_BLD/3.png,No_BLD,train,t1,0
"""


@examples(150)
@given(content=table(MANIFEST).flatmap(lambda text: st.just(text) | bent(text)), fold=st.none() | st.integers(0, 3))
def test_manifest(folder: Path, few_leaves: Path, content: bytes, fold: int | None) -> None:
    path = put(folder / "m.csv", content)
    obey("manifest", lambda: read_manifest(path, few_leaves, None, fold))
    obey("previous", lambda: read_previous(path))


NOISE = np.random.default_rng(1).integers(0, 256, (17, 24, 3), np.uint8)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@st.composite
def photographs(draw: st.DrawFn) -> tuple[str, bytes]:
    """A small picture of any format with hostile metadata, and perhaps bent bytes."""
    exif = Image.Exif()
    for _ in range(draw(st.integers(0, 4))):
        tag = draw(
            st.sampled_from(
                [0x0112, 0x010F, 0x0110, 0x0132, 0x9003, 0x8769, 0x8825, 0x011A, 0x0131, 0xA005, 0x014A, 0x0100]
            )
        )
        exif[tag] = draw(
            st.integers(0, 2**32 - 1)
            | st.binary(max_size=30)
            | st.text(alphabet=st.characters(max_codepoint=126), max_size=20)
        )
    try:
        block = exif.tobytes()
    except Exception:  # Pillow cannot write every value under every tag
        block = b"Exif\0\0II*\0\x08\0\0\0"
    block = draw(st.just(block) | bent(block))
    profile = draw(st.just(b"") | st.just(PROFILE) | bent(PROFILE) | st.binary(max_size=200))
    xmp = draw(
        st.just(b"")
        | st.binary(max_size=50)
        | texts.map(lambda t: f"<x:xmpmeta xmp:CreateDate='{t}'>".encode("utf-8", "replace"))
    )
    kind = draw(st.sampled_from(["JPEG", "PNG", "TIFF", "WEBP", "BMP", "AVIF"]))
    mode = draw(st.sampled_from(["RGB", "L", "RGB"]))
    image, target = Image.fromarray(NOISE).convert(mode), io.BytesIO()
    try:
        image.save(
            target, kind, exif=block, icc_profile=profile or None, **({"xmp": xmp} if kind in ("JPEG", "WEBP") else {})
        )
    except Exception:
        target = io.BytesIO()
        image.save(target, "PNG")
        kind = "PNG"
    content = target.getvalue()
    return kind.lower().replace("jpeg", "jpg"), draw(st.just(content) | bent(content))


@examples(100)
@given(photographs())
def test_photograph(folder: Path, picture: tuple[str, bytes]) -> None:
    suffix, content = picture
    path = put(folder / f"p.{suffix}", content)

    def read() -> None:
        with suppress(UnreadableImage):
            assert load_rgb(path).mode == "RGB"
        read_metadata(path)
        examine_file(path)

    obey("photograph", read)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    sets = {"val": rows_of(12, 1), "test": rows_of(14, 2, groups=5), "ohio_2024": rows_of(8, 3)}
    run = write_run(tmp_path_factory.mktemp("logs") / "whole", sets)
    write_photographs(run)
    append_entry(run, LedgerEntry("2026-05-01T00:00:00+00:00", "test", "test", "cc" * 32, 80, "best.ckpt"))
    return run


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bldml.report.page.evaluation_figures", lambda *_: [])
    monkeypatch.setattr("bldml.report.page.training_figures", lambda *_: [])


FILES = (
    *("config.yaml", "environment.json", "history.csv", "splits.csv", "photographs.csv", "ledger.csv"),
    *("evaluations/test/metrics.json", "evaluations/test/provenance.json", "evaluations/test/predictions.csv"),
    *("evaluations/val/metrics.json", "evaluations/val/predictions.csv", "evaluations/ohio_2024/photographs.csv"),
)


@examples(5)
@given(change=st.data(), name=st.sampled_from(FILES))
def test_run_folder(change: st.DataObject, name: str, whole: RunFolder, without_figures: None, bldml: Bldml) -> None:
    path = whole.path / name
    before = path.read_bytes()
    if name.endswith(".json"):
        content = load(change.draw(changed(yaml.safe_load(before))))
    elif name.endswith(".csv"):
        content = change.draw(table(before.decode()))
    else:
        content = dumped(change.draw(changed(yaml.safe_load(CONFIG))))
    path.write_bytes(change.draw(st.just(content) | bent(content)))
    try:
        obey_command("run folder", bldml, "report", whole.path)
    finally:
        path.write_bytes(before)


def load(value: Any) -> bytes:
    """As JSON; a number that Python does not write is left out with all the rest."""
    return json.dumps(value, default=str).encode("utf-8", "surrogatepass") if not has_huge(value) else b"{}"


def has_huge(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(has_huge, value.values()))
    if isinstance(value, list):
        return any(map(has_huge, value))
    return isinstance(value, int) and abs(value) > 10**4000


def arrays() -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, names=np.array(["a", "b"]), phashes=np.ones((2, 72), np.uint8))
    return content.getvalue()


@examples(80)
@given(bent(arrays()) | zipped(arrays()))
def test_arrays(folder: Path, content: bytes) -> None:
    run = RunFolder(folder / "run")
    run.path.mkdir(exist_ok=True)
    put(run.phashes, content)
    obey("phashes", lambda: read_phashes(run))


@examples(60)
@given(st.data())
def test_stores_of_an_audit(folder: Path, few_leaves: Path, data: st.DataObject) -> None:
    place = folder / "audit"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    path = few_leaves / "BLD" / "0.png"
    store, keypoints = Store(place), KeypointStore(place)
    store.add(path, examine_file(path, keypoints=True))
    keypoints.add("ab" * 32, bytes(100))
    store.close(complete=True)
    keypoints.close()
    for file in (store.path, keypoints.path):
        file.write_bytes(data.draw(bent(file.read_bytes())))

    def read() -> None:
        again = Store(place)
        try:
            again.find(path)
            again.find(few_leaves / "BLD" / "2.png")
            stored = KeypointStore(place)
            for digest in list(stored._found):
                assert digest == "ab" * 32
            stored.close()
        finally:
            again.close(complete=True)

    obey("stores", read)


@examples(60)
@given(data=st.data())
def test_survey(folder: Path, data: st.DataObject) -> None:
    place = folder / "survey"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    settings = {"checkpoint": "ab" * 32, "folder of photographs": "cd" * 32}
    lines: list[dict[str, Any]] = [
        {HEAD: settings},
        {"path": "BLD/0.png", "stamp": [70, 1], "probability": 0.75, "band": "positive", "familiar": True},
        {"path": "BLD/2.png", "stamp": [70, 2], "reason": "it is damaged"},
    ]
    content = b"".join(load(data.draw(st.just(line) | changed(line))) + b"\n" for line in lines)
    put(place / "progress.jsonl", data.draw(st.just(content) | bent(content)))
    put(place / "progress-2-of-3.jsonl", data.draw(st.just(content) | bent(content)))
    found = obey("survey", lambda: SurveyProgress(place, settings).read())
    if isinstance(found, dict):
        for record in found.values():
            assert record.probability is None or 0 <= record.probability <= 1
            assert record.band in ("", "positive", "uncertain", "negative")
            assert record.familiar in (None, True, False)


CONFIRMED = "path,verdict,label,predicted,unit\n" + "".join(
    f"{'BLD' if number % 2 == 0 else 'No_BLD'}/{number}.png,{verdict},BLD,BLD,t{number}\n"
    for number, verdict in enumerate(["confirm", "reject", "not a leaf", "Confirm"])
)


@examples(12)
@given(content=table(CONFIRMED).flatmap(lambda text: st.just(text) | bent(text)))
def test_review(folder: Path, few_leaves: Path, whole: RunFolder, content: bytes, bldml: Bldml) -> None:
    obey_command("review", bldml, "review", put(folder / "confirmed.csv", content), whole.path, few_leaves)


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """Index and rows of a cache of two images of 8 pixels."""
    place = tmp_path_factory.mktemp("cache")
    writer = ShardWriter(place, "8px-ab", 8, 2)
    for number in range(2):
        image = Image.effect_noise((8, 8), 40 + number).convert("RGB")
        writer.add(f"{number:064x}", np.asarray(image), None, np.zeros(PHASH_BYTES, np.uint8))
    rows = writer.finish()
    assert rows is not None
    (index,) = place.glob(f"*{INDEX}")
    return index.read_bytes(), rows.read_bytes()


@examples(80)
@given(data=st.data())
def test_cache(folder: Path, shard: tuple[bytes, bytes], data: st.DataObject) -> None:
    place, (index, rows) = folder / "cache", shard
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    with np.load(io.BytesIO(index)) as arrays:
        name = json.loads(str(arrays["about"]))["rows"]
    put(place / f"8px-ab-{'0' * 16}{INDEX}", data.draw(st.just(index) | bent(index) | zipped(index)))
    put(place / name, data.draw(st.just(rows) | bent(rows)))

    def read() -> None:
        for found in read_shards([place], "8px-ab", 8):
            stored = Rows(found.rows, 8)
            for row, checksums in enumerate(found.checksums[:4]):
                with suppress(DamagedRow):
                    assert stored.image(row, int(checksums[0])).shape == (8, 8, 3)
        with suppress(OSError):  # then nothing in the folder is removed
            rows_in_use(place)

    obey("cache", read)
