"""A checkpoint's description of itself: written, read back, and refused if it is invalid."""

import math
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bldml.errors import CheckpointError
from bldml.metrics.certainty.conformal import Bands
from bldml.metrics.certainty.novelty import JointNovelty, Novelty
from bldml.metrics.operating_point import OperatingPoint
from bldml.training.checkpoint import FORMAT, KEY, NOVELTY, Header, check_numbers, read_checkpoint
from bldml.training.networks.distribution import plain_novelty
from tests.support import Hostile, mistake

HEADER = Header(
    backbone="resnet50",
    image_size=224,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    class_names=("BLD", "No_BLD"),
    positive_class="BLD",
    threshold=0.37,
    temperature=1.3,
    fingerprints={"train": "00", "val": "11"},
    seen="00112233445566778899aabbccddeeff",
    versions={"torch": "2.15.0"},
    settings={"data": {"root": "data", "batch_size": 16, "class_aliases": None}},
)
WEIGHTS = {"network.fc.weight": torch.arange(4.0), "pos_weight": torch.ones(())}


def content(**changes: Any) -> dict[str, Any]:
    return {"epoch": 3, "state_dict": WEIGHTS, KEY: asdict(HEADER) | changes}


def saved(folder: Path, what: object) -> Path:
    torch.save(what, folder / "best.ckpt")
    return folder / "best.ckpt"


def test_round_trip(tmp_path: Path) -> None:
    path = saved(tmp_path, content())
    checkpoint = read_checkpoint(path)
    assert checkpoint.header == HEADER
    assert (checkpoint.path, checkpoint.epoch) == (path, 3)
    assert checkpoint.state_dict.keys() == WEIGHTS.keys()
    assert all(torch.equal(checkpoint.state_dict[key], value) for key, value in WEIGHTS.items())
    assert checkpoint.header.negative_class == "No_BLD"
    assert checkpoint.header.operating_point == OperatingPoint(0.37, 1.3)
    assert checkpoint.header.format == FORMAT


def test_description_is_plain(tmp_path: Path) -> None:
    """So that it loads where bldml is not, and with weights_only."""
    plain = torch.load(saved(tmp_path, content()), weights_only=True)[KEY]
    assert plain == asdict(HEADER)

    def check(value: object) -> None:
        assert type(value) in (dict, tuple, list, str, int, float, bool, type(None))
        if isinstance(value, dict):
            for key, item in value.items():
                assert type(key) is str
                check(item)
        elif isinstance(value, tuple | list):
            for item in value:
                check(item)

    check(plain)


def test_lists_are_as_good_as_tuples_and_more_keys_do_no_harm(tmp_path: Path) -> None:
    path = saved(tmp_path, content(mean=[0.485, 0.456, 0.406], class_names=["BLD", "No_BLD"], later="unknown"))
    assert read_checkpoint(path).header == HEADER


def test_what_no_evaluation_uses_is_dropped_unread(tmp_path: Path) -> None:
    settings = {"data": HEADER.settings["data"] | {"num_workers": "many"}, "precision": [{}]}
    assert read_checkpoint(saved(tmp_path, content(settings=settings))).header == HEADER


@pytest.mark.parametrize("epoch", ["3", [3], 2**40, -7, None, True, 2.5])
def test_an_epoch_that_is_none(epoch: object, tmp_path: Path) -> None:
    with mistake("checkpoint-header-wrong") as caught:
        read_checkpoint(saved(tmp_path, content() | {"epoch": epoch}))
    assert caught.value.fields["reason"] == "epoch invalid"


@pytest.mark.parametrize("positive", ["BLD", "No_BLD"])
def test_negative_class_is_the_other_one(positive: str, tmp_path: Path) -> None:
    header = read_checkpoint(saved(tmp_path, content(positive_class=positive))).header
    assert {header.positive_class, header.negative_class} == {"BLD", "No_BLD"}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"format": 2}, "its format is 2; this version of bldml reads 1"),
    ({"format": None}, "its format is None"),
    ({"backbone": "vit"}, "backbone invalid"),
    ({"backbone": None}, "backbone invalid"),
    ({"image_size": 224.0}, "image_size invalid"),
    ({"image_size": 0}, "image_size invalid"),
    ({"image_size": 10**6}, "image_size invalid"),
    ({"class_names": ("a",)}, "class_names"),
    ({"class_names": ("BLD", "BLD")}, "class_names"),
    ({"class_names": ("BLD", "b", "c")}, "class_names"),
    ({"class_names": ("BLD", 1)}, "class_names"),
    ({"class_names": 2}, "class_names invalid: not a list"),
    ({"class_names": "ab"}, "class_names invalid: not a list"),
    ({"class_names": ("BLD", "")}, "class_names"),
    ({"class_names": ("BLD", "No\0BLD")}, "class_names"),
    ({"class_names": ("BLD", "x" * 5000)}, "class_names"),
    ({"positive_class": torch.zeros(3)}, "positive_class invalid"),
    ({"backbone": torch.zeros(3)}, "backbone invalid"),
    ({"image_size": True}, "image_size invalid"),
    ({"mean": torch.zeros(3)}, "mean invalid: not a list"),
    ({"positive_class": "bld"}, "positive_class invalid"),
    ({"mean": (0.5, 0.5)}, "mean or std invalid"),
    ({"mean": 0.5}, "mean invalid: not a list"),
    ({"mean": ("0.5", 0.5, 0.5)}, "mean or std"),
    ({"std": (0.2, 0.0, 0.2)}, "mean or std"),
    ({"std": ()}, "mean or std"),
    ({"threshold": math.nan}, "threshold"),
    ({"threshold": "0.5"}, "threshold"),
    ({"threshold": 1.5}, "threshold"),
    ({"threshold": -0.5}, "threshold"),
    ({"threshold": torch.tensor(0.5)}, "threshold"),
    ({"temperature": 0.0}, "temperature"),
    ({"temperature": math.inf}, "temperature"),
    ({"temperature": 1e-9}, "temperature"),
    ({"temperature": 1e9}, "temperature"),
    ({"offset": 1e9}, "offset"),
    ({"undescribed": torch.zeros(3), "format": 9}, "its format is 9"),
    ({"settings": {}}, "settings invalid"),
    ({"settings": {"data": None}}, "settings invalid"),
    ({"settings": None}, "settings invalid"),
    ({"settings": {"data": {"batch_size": "many"}}}, "settings.data.batch_size invalid"),
    ({"settings": {"data": {"batch_size": True}}}, "settings.data.batch_size invalid"),
    ({"settings": {"data": {"root": "a\0b"}}}, "settings.data.root invalid"),
    ({"settings": {"data": {"root": 3}}}, "settings.data.root invalid"),
    ({"settings": {"data": {"unreadable": "delete"}}}, "settings.data.unreadable invalid"),
    ({"settings": {"data": {"class_aliases": {"a": 1}}}}, "settings.data.class_aliases invalid"),
    ({"settings": {"data": {"val_fraction": math.nan, "fold": -1}}}, "settings.data.fold, settings.data.val_fraction"),
    ({"fingerprints": {"train": 3}}, "fingerprints invalid"),
    ({"seen": "not hexadecimal"}, "seen invalid"),
    ({"fingerprints": None}, "fingerprints invalid"),
    ({"versions": []}, "versions invalid"),
    ({"bands": {"error": 0.05}}, "bands need error, n_positive, n_negative, low, high"),
    ({"bands": asdict(Bands(0.05, 20, 20, 0.8, 0.2))}, "these are no bands"),
    ({"bands": asdict(Bands(0.05, 20, 20, 0.2))}, "these are no bands"),
    ({"bands": asdict(Bands(0.05, 20, 20, math.nan, 0.5))}, "these are no bands"),
    ({"backbone": "vit", "fingerprints": 3}, "backbone, fingerprints invalid"),
]


@pytest.mark.parametrize(("change", "words"), WRONG)
def test_wrong_description_is_refused(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = saved(tmp_path, content(**change))
    with mistake("checkpoint-header-wrong", path=path) as caught:
        read_checkpoint(path)
    assert words in caught.value.fields["reason"]


def test_a_header_of_before_has_no_offset_and_was_decoded_at_a_reduced_scale(tmp_path: Path) -> None:
    whole = content()
    del whole[KEY]["offset"], whole[KEY]["decode"]
    header = read_checkpoint(saved(tmp_path, whole)).header
    assert (header.offset, header.decode) == (0, "reduced")


@pytest.mark.parametrize("field", sorted(set(asdict(HEADER)) - {"offset", "decode", "bands"}))
def test_no_field_may_be_missing(field: str, tmp_path: Path) -> None:
    whole = content()
    del whole[KEY][field]
    with mistake("checkpoint-header-wrong") as caught:
        read_checkpoint(saved(tmp_path, whole))
    assert field in caught.value.fields["reason"]


FOREIGN, WITHOUT_WEIGHTS, WRONG_HEADER = "checkpoint-foreign", "checkpoint-without-weights", "checkpoint-header-wrong"


@pytest.mark.parametrize(
    ("what", "code"),
    [
        (WEIGHTS, FOREIGN),
        ({"state_dict": WEIGHTS}, FOREIGN),
        ({KEY: asdict(HEADER)}, FOREIGN),
        ([1, 2], FOREIGN),
        (torch.zeros(3), FOREIGN),
        (content() | {KEY: "resnet50"}, WRONG_HEADER),
        (content() | {"state_dict": [1]}, WITHOUT_WEIGHTS),
        (content() | {"state_dict": {"network.fc.weight": 1.0}}, WITHOUT_WEIGHTS),
        (content() | {"state_dict": {0: torch.zeros(1)}}, WITHOUT_WEIGHTS),
        (content() | {"epoch": "last"}, WRONG_HEADER),
        (content() | {"epoch": None}, WRONG_HEADER),
        (content() | {"epoch": math.inf}, WRONG_HEADER),
    ],
)
def test_something_else_is_refused(what: object, code: str, tmp_path: Path) -> None:
    with mistake(code):
        read_checkpoint(saved(tmp_path, what))


@pytest.mark.parametrize("place", ["state_dict", KEY, "callbacks"])
@pytest.mark.parametrize("zipped", [True, False])
def test_hostile_pickle_does_not_run(place: str, zipped: bool, tmp_path: Path) -> None:
    trace, path = tmp_path / "was_here", tmp_path / "best.ckpt"
    torch.save(content() | {place: Hostile(trace)}, path, _use_new_zipfile_serialization=zipped)
    with mistake("checkpoint-damaged", path=path) as caught:
        read_checkpoint(path)
    assert "weights_only" not in str(caught.value)  # torch advises to load it without
    assert not trace.exists()
    # It would have run:
    torch.load(path, weights_only=False)
    assert trace.exists()


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"hello" + b[5:]])
def test_damaged_file_is_refused(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = saved(tmp_path, content())
    path.write_bytes(damage(path.read_bytes()))
    with mistake("checkpoint-damaged", path=path):
        read_checkpoint(path)


def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    path = saved(tmp_path, content() | {"more": torch.arange(2000.0)})
    whole, expected = path.read_bytes(), read_checkpoint(path)
    random = np.random.default_rng(0)
    # Torch pads its entries; the ends of the file hold the archive's own records.
    places = {*range(200), *range(len(whole) - 200, len(whole)), *random.integers(0, len(whole), 600).tolist()}
    refused = 0
    for place in sorted(places):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        try:
            found = read_checkpoint(path)
        except CheckpointError:
            refused += 1
        else:
            assert (found.header, found.epoch) == (expected.header, expected.epoch), place
            assert found.state_dict.keys() == expected.state_dict.keys(), place
            assert all(torch.equal(found.state_dict[name], expected.state_dict[name]) for name in found.state_dict), (
                place
            )
    assert refused > len(places) / 4


def test_an_archive_that_says_it_is_larger_than_it_is(tmp_path: Path) -> None:
    torch.save(content() | {"more": torch.zeros(2_000_000)}, tmp_path / "large.ckpt")
    path = tmp_path / "best.ckpt"
    with zipfile.ZipFile(tmp_path / "large.ckpt") as large, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as small:
        for entry in large.infolist():
            small.writestr(entry.filename, large.read(entry))
    with mistake("checkpoint-damaged", path=path) as caught:
        read_checkpoint(path)
    assert "more than its size" in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        *(torch.ones(3, dtype=torch.int8), torch.ones(3, dtype=torch.complex64), torch.tensor([1.0, float("nan")])),
        *(torch.eye(3).to_sparse(), torch.ones(3, device="meta"), torch.ones(1).expand(3, 3)),
    ],
)
def test_weights_are_finite_real_numbers(wrong: torch.Tensor) -> None:
    check_numbers({"layer.weight": torch.ones(2), "bn.num_batches_tracked": torch.tensor(3)})
    with pytest.raises(ValueError, match=r"layer\.bias"):
        check_numbers({"layer.weight": torch.ones(2), "layer.bias": wrong})


def test_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path, code in ((Path("best.ckpt"), "checkpoint-missing"), (tmp_path, "checkpoint-folder-without-best")):
        with mistake(code, path=path) as caught:
            read_checkpoint(path)
        assert str(tmp_path) in str(caught.value)


MEAN, BASIS, VARIANCES = np.ones(4, np.float32), np.ones((2, 4), np.float32), np.ones(2, np.float32)
FAMILIAR = Novelty(MEAN, BASIS, VARIANCES, rest=0.5, limit=3.0, rate=0.02, n_train=9, n_val=60)


def test_bands_and_distribution_are_read_back_and_not_recorded_without_them(tmp_path: Path) -> None:
    plain = read_checkpoint(saved(tmp_path, content()))
    assert (plain.header.bands, plain.novelty) == (None, None)
    bands = Bands(0.05, 20, 30, 0.2, 0.8)
    found = read_checkpoint(saved(tmp_path, content(bands=asdict(bands)) | {NOVELTY: plain_novelty(FAMILIAR)}))
    assert found.header.bands == bands
    assert found.novelty is not None
    for name, value in vars(FAMILIAR).items():
        assert np.array_equal(getattr(found.novelty, name), value), name


@pytest.mark.parametrize(
    "change",
    [
        {"mean": torch.ones(3)},
        {"mean": torch.tensor([1.0, 1.0, 1.0, math.nan])},
        {"mean": [1.0, 1.0, 1.0, 1.0]},
        {"basis": torch.ones(3, 4)},
        {"basis": torch.ones(2, 4, dtype=torch.float64)},
        {"variances": torch.zeros(2)},
        {"rest": 0.0},
        {"limit": math.inf},
        {"rate": "0.02"},
        {"rate": 1.5},
        {"n_train": "many"},
        {"mean": torch.nn.Parameter(torch.zeros(2, 2))},
    ],
    ids=str,
)
def test_a_wrong_distribution_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    path = saved(tmp_path, content() | {NOVELTY: plain_novelty(FAMILIAR) | change})
    with mistake("checkpoint-header-wrong", path=path):
        read_checkpoint(path)


def test_the_distributions_of_an_ensemble_are_read_back(tmp_path: Path) -> None:
    part = replace(FAMILIAR, mean=np.ones(2, np.float32), basis=np.ones((2, 2), np.float32))
    joint = JointNovelty((part, part), limit=0.9, rate=0.02, n_train=30, n_val=60)
    plain = plain_novelty(joint)
    found = read_checkpoint(saved(tmp_path, content() | {NOVELTY: plain})).novelty
    assert isinstance(found, JointNovelty)
    assert (found.limit, found.rate, found.n_train, found.n_val) == (0.9, 0.02, 30, 60)
    for one in found.parts:
        for name, value in vars(part).items():
            assert np.array_equal(getattr(one, name), value), name
    parts = plain["parts"]
    for wrong in ([], parts[:1], parts * 2, [*parts[:1], plain], [*parts[:1], 5], 5, [parts[0] | {"rest": -1.0}] * 2):
        with mistake("checkpoint-header-wrong"):
            read_checkpoint(saved(tmp_path, content() | {NOVELTY: plain | {"parts": wrong}}))
    with mistake("checkpoint-header-wrong"):
        read_checkpoint(saved(tmp_path, content() | {NOVELTY: plain | {"limit": 0.0}}))


def test_a_distribution_of_another_network_is_refused(tmp_path: Path) -> None:
    weights = WEIGHTS | {"network.fc.weight": torch.ones(1, 5)}
    path = saved(tmp_path, content() | {NOVELTY: plain_novelty(FAMILIAR), "state_dict": weights})
    with mistake("checkpoint-header-wrong", path=path):
        read_checkpoint(path)
