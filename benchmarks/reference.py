"""The plain way: ImageFolder, PIL, torchvision's transforms and float32, as the users' scripts train.

    python benchmarks/reference.py FOLDER --backbone mobilenet_v3_large --size 384 --epochs 2 [--unfrozen 2]

FOLDER holds train/ and val/, each with a folder a class. Prints a JSON line an epoch: seconds and photographs of
training and validation. It is what `training.py` compares `bldml fit` with, alone or with two variables of glibc set.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from bldml.training.backbones import BACKBONES, build

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def loaders(folder: Path, size: int, batch_size: int, workers: int) -> tuple[DataLoader[object], DataLoader[object]]:
    """Training and validation loaders."""
    augment = transforms.Compose(
        [
            transforms.RandomResizedCrop(size, scale=(0.8, 1.0)),
            transforms.RandomHorizontalFlip(),
            transforms.RandomVerticalFlip(),
            transforms.RandomRotation(15),
            transforms.ColorJitter(0.2, 0.2, 0.2, 0.02),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    plain = transforms.Compose(
        [transforms.Resize((size, size)), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    )
    return (
        DataLoader(
            datasets.ImageFolder(folder / "train", augment), batch_size, shuffle=True, num_workers=workers,
            persistent_workers=True,
        ),
        DataLoader(
            datasets.ImageFolder(folder / "val", plain), batch_size, num_workers=workers, persistent_workers=True
        ),
    )  # fmt: skip


def main() -> int:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", default="mobilenet_v3_large", choices=list(BACKBONES))
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--unfrozen", type=int, default=0, help="stages that are trained beside the head")
    options = parser.parse_args()
    torch.manual_seed(0)
    network, row = build(options.backbone), BACKBONES[options.backbone]
    network.requires_grad_(False)
    trained = [row.head, *(path for stage in row.stages[: options.unfrozen] for path in stage)]
    for path in trained:
        network.get_submodule(path).requires_grad_(True)
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], 1e-4)
    criterion = nn.BCEWithLogitsLoss()
    training, validation = loaders(options.folder, options.size, options.batch_size, options.workers)
    for epoch in range(options.epochs):
        start = time.perf_counter()
        network.train()
        for images, labels in training:
            optimizer.zero_grad()
            loss = criterion(network(images)[:, 0], labels.float())
            loss.backward()
            optimizer.step()
            loss.item()
        between = time.perf_counter()
        network.eval()
        with torch.no_grad():
            for images, labels in validation:
                criterion(network(images)[:, 0], labels.float()).item()
        counts = [len(loader.dataset) for loader in (training, validation)]  # type: ignore[arg-type]
        record = {
            "epoch": epoch, "train_seconds": between - start, "val_seconds": time.perf_counter() - between,
            "train": counts[0], "val": counts[1],
        }  # fmt: skip
        sys.stdout.write(json.dumps(record) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
