"""Drawn leaves: the same for the same seed, whole or not there, and told apart by their bands alone."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from bldml.dataset.images import load_rgb
from bldml.dataset.synthetic import leaves as synthetic
from bldml.dataset.synthetic.drawing import draw_leaf
from bldml.dataset.synthetic.leaves import write_leaves
from tests.support import mistake


def contents(root: Path) -> dict[str, bytes]:
    """Every file below `root`."""
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def leaf(diseased: bool, seed: int, size: int = 96) -> Image.Image:
    return draw_leaf(diseased, size, np.random.default_rng(seed))


# --- folders ---------------------------------------------------------------------------------------


def test_flat_folders(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "leaves"
    assert write_leaves(root, images_per_class=3, size=32) == 6
    names = [f"leaf_{number:04d}.jpg" for number in (1, 2, 3)]
    assert list(contents(root)) == [f"{folder}/{name}" for folder in ("BLD", "No_BLD") for name in names]
    assert [path.name for path in root.parent.iterdir()] == ["leaves"]


def test_split_folders(tmp_path: Path) -> None:
    splits = {"train": 0.6, "val": 0.2, "test": 0.2}
    count = write_leaves(tmp_path / "leaves", 10, size=32, class_names=("healthy", "ill"), splits=splits)
    assert count == 20
    counts = {
        f"{split}/{name}": len(list((tmp_path / "leaves" / split / name).iterdir()))
        for split in splits
        for name in ("healthy", "ill")
    }
    assert counts == {
        "train/healthy": 6,
        "train/ill": 6,
        "val/healthy": 2,
        "val/ill": 2,
        "test/healthy": 2,
        "test/ill": 2,
    }
    assert len(set(contents(tmp_path / "leaves").values())) == 20  # no picture twice


@pytest.mark.parametrize("count", [1, 7, 10, 11])
def test_no_picture_is_lost_between_splits(tmp_path: Path, count: int) -> None:
    write_leaves(tmp_path / "leaves", count, size=16, splits={"a": 1 / 3, "b": 1 / 3, "c": 1 / 3})
    names = [path.name for path in (tmp_path / "leaves").rglob("No_BLD/*.jpg")]
    assert sorted(names) == [f"leaf_{number:04d}.jpg" for number in range(1, count + 1)]


def test_the_files_are_rgb_jpegs_of_the_size_asked_for(tmp_path: Path) -> None:
    write_leaves(tmp_path / "leaves", images_per_class=8, size=64)
    sizes: dict[str, list[tuple[int, int]]] = {"No_BLD": [], "BLD": []}
    for path in sorted((tmp_path / "leaves").rglob("*.jpg")):
        with Image.open(path) as image:
            assert (image.format, image.mode) == ("JPEG", "RGB")
        sizes[path.parent.name].append(load_rgb(path).size)
    assert set(sizes["BLD"]) | set(sizes["No_BLD"]) == {(64, 48), (48, 64), (64, 64)}
    assert sizes["BLD"] != sizes["No_BLD"]  # the classes do not share their scenes


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "leaves").mkdir()
    assert write_leaves(tmp_path / "leaves", images_per_class=1, size=16) == 2


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    note = tmp_path / "leaves" / "note.txt"
    note.parent.mkdir()
    note.write_text("mine")
    with mistake("demo-folder-not-empty", path=note.parent):
        write_leaves(note.parent, images_per_class=1, size=16)
    with mistake("demo-folder-not-empty", path=note):
        write_leaves(note, images_per_class=1, size=16)
    assert contents(tmp_path) == {"leaves/note.txt": b"mine"}


def test_an_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def draw_two(diseased: bool, size: int, generator: np.random.Generator) -> Image.Image:
        drawn.append(size)
        if len(drawn) == 3:
            assert not (tmp_path / "leaves").exists()
            raise KeyboardInterrupt
        return draw_leaf(diseased, size, generator)

    monkeypatch.setattr(synthetic, "draw_leaf", draw_two)
    with pytest.raises(KeyboardInterrupt):
        write_leaves(tmp_path / "leaves", images_per_class=5, size=16)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"images_per_class": 0}, "demo-option-out-of-range"),
        ({"size": 15}, "demo-option-out-of-range"),
        ({"size": 10**9}, "demo-option-out-of-range"),
        ({"seed": -1}, "demo-option-out-of-range"),
        ({"class_names": ("BLD", "BLD")}, "demo-classes-equal"),
        ({"class_names": ("../BLD", "No_BLD")}, "demo-name-refused"),
        ({"class_names": ("", "No_BLD")}, "demo-name-refused"),
        ({"class_names": ("..", "No_BLD")}, "demo-name-refused"),
        ({"splits": {"train": 0.6, "test": 0.2}}, "demo-splits-wrong"),
        ({"splits": {"train": 1.2, "test": -0.2}}, "demo-splits-wrong"),
        ({"splits": {}}, "demo-splits-wrong"),
        ({"splits": {"a/b": 1.0}}, "demo-name-refused"),
    ],
)
def test_senseless_arguments_are_refused(tmp_path: Path, arguments: dict[str, object], code: str) -> None:
    with mistake(code):
        write_leaves(tmp_path / "leaves", **arguments)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


# --- determinism -----------------------------------------------------------------------------------


def test_the_seed_decides(tmp_path: Path) -> None:
    for name, seed in [("one", 5), ("again", 5), ("other", 6)]:
        write_leaves(tmp_path / name, images_per_class=3, size=32, seed=seed)
    one, again, other = (contents(tmp_path / name) for name in ("one", "again", "other"))
    assert one == again
    assert all(one[name] != other[name] for name in one)
    assert len(set(one.values())) == 6


def test_a_leaf_does_not_depend_on_how_many_are_drawn(tmp_path: Path) -> None:
    write_leaves(tmp_path / "few", images_per_class=2, size=32)
    write_leaves(tmp_path / "many", images_per_class=5, size=32, splits={"train": 0.8, "test": 0.2})
    few = contents(tmp_path / "few")
    many = {name.split("/", 1)[1]: content for name, content in contents(tmp_path / "many").items()}
    assert len(many) == 10
    assert few.items() <= many.items()


# --- what is drawn ---------------------------------------------------------------------------------


def test_the_disease_changes_the_blade_alone() -> None:
    """With one seed both classes get one scene: background, pose, light and noise are the same to the bit."""
    for seed in range(40):
        healthy, ill = (np.asarray(leaf(diseased, seed)) for diseased in (False, True))
        changed = (healthy != ill).any(axis=-1)
        assert 0.03 < changed.mean() < 0.65


def test_bands_are_dark() -> None:
    darkest = []
    for seed in range(40):
        healthy, ill = (np.asarray(leaf(diseased, seed), dtype=float) for diseased in (False, True))
        darkest.append((np.percentile((ill - healthy).mean(axis=-1), 0.5)) / healthy.mean())
    assert np.median(darkest) < -0.15
    assert max(darkest) < -0.04


def cues(diseased: bool) -> npt.NDArray[np.float64]:
    """What a lazy classifier could go by, of 150 leaves: red, green, blue, brightness, greenness, shape."""
    rows = []
    for number in range(150):
        picture = draw_leaf(diseased, 64, np.random.default_rng([0, diseased, number]))
        red, green, blue = np.asarray(picture, dtype=float).mean(axis=(0, 1))
        brightness, greenness = (red + green + blue) / 3, green - (red + blue) / 2
        rows.append([red, green, blue, brightness, greenness, picture.width / picture.height])
    return np.array(rows)


def test_no_mean_colour_and_no_frame_gives_the_class_away() -> None:
    healthy, ill = cues(False), cues(True)
    labels = np.repeat([0, 1], 150)
    for column in range(healthy.shape[1]):
        auroc = roc_auc_score(labels, np.concatenate([healthy[:, column], ill[:, column]]))
        assert 0.35 < auroc < 0.65, column


def test_scenes_vary() -> None:
    healthy = cues(False)
    assert healthy[:, 3].std() > 15  # brightness, in grey levels
    assert len(set(healthy[:, 5])) == 3  # landscape, portrait, square
