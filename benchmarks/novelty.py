"""Whether the distance of `bldml.metrics.certainty.novelty` tells leaves from other pictures, beside other measures.

    pip install --no-deps --target /tmp/pictures scikit-image lazy_loader
    python -m bldml fit ../shared/data/coffee/images --positive_class diseased --model.backbone mobilenet_v2_x0_35 …
    PYTHONPATH=/tmp/pictures nice -n 19 python benchmarks/novelty.py lightning_logs/<run> ../shared/data/coffee/images

The classifier was trained on coffee leaves. Its test split (new coffee leaves) is told from drawn beech leaves, drawn
flowers, photographs and other images that scikit-image and scikit-learn contain (some show people, animals, a cup, a
garage, textures, a page), small faces, line drawings, noise, and from the same coffee leaves changed: blurred, darker,
cut, with a green tint, mirrored. AUROC of each measure: the area under the ROC curve of "is no such leaf".
"""

import argparse
import csv
import json
import platform
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import sklearn.datasets
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from bldml.dataset.images import load_rgb
from bldml.dataset.synthetic.drawing import draw_leaf
from bldml.metrics.certainty import novelty
from bldml.metrics.certainty.novelty import Novelty, fit_novelty
from bldml.metrics.proportions import proportion
from bldml.training.checkpoint import read_checkpoint
from bldml.training.module import LeafClassifier
from bldml.training.transforms import evaluation_image

Pictures = Iterator[Image.Image]
DRAWN = 100
FACES = 100  # scikit-image's file holds so many faces, then as many other cuttings
NEIGHBOURS = 5


def flowers() -> Pictures:
    """Yield drawn flowers: coloured petals around a centre, on a plain light ground or on green."""
    for number in range(DRAWN):
        generator = np.random.default_rng([1, number])
        ground = (235, 235, 230) if number % 2 else tuple(generator.integers((40, 90, 30), (90, 150, 80)).tolist())
        image = Image.new("RGB", (512, 384), ground)
        draw, n = ImageDraw.Draw(image), int(generator.integers(5, 14))
        colour = tuple(generator.integers((120, 0, 60), (256, 200, 256)).tolist())
        reach, width = generator.uniform(110, 180), generator.uniform(25, 55)
        for angle in np.linspace(0, 2 * np.pi, n, endpoint=False) + generator.uniform(0, 1):
            along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
            t = np.linspace(0, 2 * np.pi, 40)[:, None]
            edge = np.array([256, 192]) + (reach / 2 * (1 + np.cos(t))) * along + width * np.sin(t) * across
            draw.polygon([*map(tuple, edge.tolist())], fill=colour, outline=(90, 40, 70))
        draw.ellipse((226, 162, 286, 222), fill=(230, 190, 40))
        yield image.filter(ImageFilter.GaussianBlur(1))


def drawings() -> Pictures:
    """Yield line drawings on white."""
    for number in range(DRAWN):
        generator = np.random.default_rng([2, number])
        image = Image.new("RGB", (512, 384), "white")
        draw = ImageDraw.Draw(image)
        for _ in range(int(generator.integers(3, 12))):
            points = [*map(tuple, (generator.uniform(0, 1, (5, 2)) * (512, 384)).tolist())]
            draw.line(points, fill="black", width=int(generator.integers(2, 6)))
        yield image


def noise() -> Pictures:
    """Yield noise, independent by pixel or smooth."""
    for number in range(DRAWN):
        generator = np.random.default_rng([3, number])
        side = (256, 32, 8)[number % 3]
        pixels = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
        yield Image.fromarray(pixels).resize((512, 384), Image.Resampling.BICUBIC)


def beech() -> Pictures:
    """Yield drawn beech leaves, half of them diseased."""
    for number in range(DRAWN):
        yield draw_leaf(bool(number % 2), 256, np.random.default_rng([4, number]))


def photographs(folders: Mapping[str, Path]) -> Pictures:
    """Yield the images of the packages."""
    for folder in folders.values():
        for path in sorted([*folder.glob("*.png"), *folder.glob("*.jpg")]):
            yield load_rgb(path)


def faces(folder: Path) -> Pictures:
    """Yield faces of 25 pixels, enlarged."""
    for pixels in np.load(folder / "lfw_subset.npy")[:FACES]:
        yield Image.fromarray(np.uint8(pixels * 255)).convert("RGB").resize((256, 256), Image.Resampling.BICUBIC)


def changed(paths: list[Path]) -> dict[str, Pictures]:
    """Return the same leaves, changed."""
    kinds = {
        "the same leaves, mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "the same leaves, blurred": lambda image: image.filter(ImageFilter.GaussianBlur(image.width / 80)),
        "the same leaves, darker": lambda image: ImageEnhance.Brightness(image).enhance(0.4),
        "the same leaves, their middle only": lambda image: image.crop(
            (image.width // 3, image.height // 3, 2 * image.width // 3, 2 * image.height // 3)
        ),
        "the same leaves, tinted": lambda image: Image.blend(image, Image.new("RGB", image.size, (0, 160, 0)), 0.3),
    }
    return {name: map(change, map(load_rgb, paths)) for name, change in kinds.items()}


def examine(model: LeafClassifier, images: Pictures) -> tuple[np.ndarray, np.ndarray]:
    """Return logits (n,) and features (n, d), float32."""
    logits, features = [], []
    with torch.inference_mode():
        for image in images:
            one = model.evaluate_with_features(evaluation_image(image, model.image_size).unsqueeze(0))
            logits.append(one[0].numpy())
            features.append(one[1].numpy())
    return np.concatenate(logits), np.concatenate(features)


def measures(train: np.ndarray, val: np.ndarray) -> dict[str, Any]:
    """Return functions from features (n, d) to how unlike the training photographs they are, (n,)."""
    found: dict[str, Any] = {}
    for components in (16, 64, 128, 256, 512):
        novelty.COMPONENTS = components
        fitted = fit_novelty(train, val, np.arange(len(val)))
        assert fitted is not None
        found[f"Mahalanobis, {components} components"] = fitted.distances
    whole = LedoitWolf().fit(train)
    found["Mahalanobis, Ledoit-Wolf, whole"] = lambda features: np.sqrt(whole.mahalanobis(features))
    near = NearestNeighbors(n_neighbors=NEIGHBOURS, metric="cosine").fit(train)
    found[f"{NEIGHBOURS} nearest neighbours, cosine"] = lambda features: near.kneighbors(features)[0].mean(axis=1)
    return found


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/novelty.json"))
    options = parser.parse_args()
    skimage = import_module("skimage")  # not a dependency of bldml

    checkpoint = read_checkpoint(options.run)
    header = checkpoint.header
    model = LeafClassifier(header.backbone, weights="none", image_size=header.image_size)
    model.load_state_dict(checkpoint.state_dict)
    model.eval()
    rows = list(csv.DictReader((options.run / "splits.csv").open(encoding="utf-8")))
    paths = {
        split: [options.photographs / row["path"] for row in rows if row["split"] == split]
        for split in ("train", "val", "test")
    }
    leaves = {split: examine(model, map(load_rgb, found)) for split, found in paths.items()}
    data = Path(str(skimage.__file__)).parent / "data"
    sets = {
        "drawn flowers": flowers(),
        "drawn beech leaves": beech(),
        "images of scikit-image and scikit-learn": photographs(
            {"a": data, "b": Path(sklearn.datasets.__file__).parent / "images"}
        ),
        "faces of 25 pixels": faces(data),
        "line drawings": drawings(),
        "noise": noise(),
        **changed(paths["test"]),
    }
    train, val, (logits, test) = leaves["train"][1], leaves["val"][1], leaves["test"]
    stored = checkpoint.novelty
    assert isinstance(stored, Novelty)
    ways = {"as stored in the checkpoint": stored.distances, **measures(train, val)}
    flagged = stored.distances(test) > 1
    result: dict[str, Any] = {
        "backbone": header.backbone,
        "features": int(train.shape[1]),
        "train": len(train),
        "val": len(val),
        "test": len(test),
        "expected rate": stored.rate,
        "test flagged": shown(flagged),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "sets": {},
    }
    for name, images in sets.items():
        other_logits, other = examine(model, images)
        is_other = np.repeat([0, 1], [len(test), len(other)])
        doubt = -np.abs(np.concatenate([logits, other_logits]) - logit_of(header.threshold, header.temperature))
        found = result["sets"][name] = {
            "n": len(other),
            "predicted positive": int(np.sum(header.operating_point.probabilities(other_logits) >= header.threshold)),
            "flagged": shown(stored.distances(other) > 1),
            "AUROC": {way: auroc(is_other, [*one(test), *one(other)]) for way, one in ways.items()}
            | {"low confidence": auroc(is_other, doubt)},
        }
        print(f"{name}: {json.dumps(found, indent=1)}")
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def shown(hits: np.ndarray) -> str:
    """Return a number of photographs with the interval of its proportion."""
    limits = proportion(int(hits.sum()), hits.size).interval
    assert limits is not None
    return f"{hits.sum()} of {hits.size} [{limits.low:.3f}, {limits.high:.3f}]"


def auroc(is_other: np.ndarray, scores: Any) -> float:
    """Return the area under the ROC curve, rounded."""
    return round(float(roc_auc_score(is_other, scores)), 4)


def logit_of(threshold: float, temperature: float) -> float:
    """Return the logit at the threshold."""
    clipped = min(max(threshold, 1e-12), 1 - 1e-12)
    return float(np.log(clipped / (1 - clipped)) * temperature)


if __name__ == "__main__":
    main()
