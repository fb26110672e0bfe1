"""LeafDataModule: photographs on disk to batches."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from bldml.dataset.files import DatasetError, show_path
from bldml.dataset.folders import read_folders, read_unlabelled
from bldml.dataset.manifest import read_manifest
from bldml.dataset.metadata import Metadata
from bldml.dataset.samples import (
    Collection,
    Sample,
    check_positive_class,
    check_trainable,
    fingerprint,
    no_photographs,
)
from bldml.dataset.verify import verify
from bldml.training.leafdataset import FlipLabels, Item, LeafDataset
from bldml.training.sampling import EpochSampler, EvaluationSampler, LeafLoader
from bldml.training.stopping import ignore_in_worker
from bldml.training.transforms import Augmentation

DEFAULT_AUGMENTATION = Augmentation()


class LeafDataModule(LightningDataModule):
    """The photographs: where they are, what they are called, how they are divided and fed.

    Args:
        root: Folder with train/val/test folders of class folders, or with one folder a class (then divided by a fixed
            rule), or where a manifest's paths start.
        manifest: CSV with the columns path, label, split and perhaps group, instead of the folders.
        positive_class: Name of the class that is to be found, such as BLD.
        class_aliases: Class name for a folder's name or a manifest's label, where they differ, such as {1_BLD: BLD}.
        val_fraction: Share of a flat folder that becomes the validation split, in (0, 1).
        test_fraction: Share of a flat folder that becomes the test split, in [0, 1); 0 for none.
        unreadable: What to do when a photograph cannot be decoded: stop with the full list (error), or leave them out
            and list them in the run folder (exclude).
        batch_size: Photographs in a training batch.
        num_workers: Processes that load photographs; auto takes the CPUs that this job was granted, at most 16.
        augmentation: How training pictures vary; null for not at all.
        image_size: Side in pixels (taken from the model).
        seed: Seed of order and augmentation (taken from seed_everything).
    """

    def __init__(
        self,
        root: Path | None = None,
        manifest: Path | None = None,
        positive_class: str | None = None,
        class_aliases: dict[str, str] | None = None,
        val_fraction: float = 0.2,
        test_fraction: float = 0.2,
        unreadable: Literal["error", "exclude"] = "error",
        batch_size: int = 16,
        num_workers: int | Literal["auto"] = "auto",
        augmentation: Augmentation | None = DEFAULT_AUGMENTATION,
        image_size: int = 224,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not (0 < val_fraction < 1 and 0 <= test_fraction < 1 and val_fraction + test_fraction < 1):
            raise DatasetError(
                f"data.val_fraction {val_fraction} and data.test_fraction {test_fraction} must lie in (0, 1) and "
                "[0, 1) and leave something for training."
            )
        if batch_size < 1:
            raise DatasetError(f"data.batch_size must be at least 1, not {batch_size}.")
        if num_workers != "auto" and num_workers < 0:
            raise DatasetError(f"data.num_workers must be auto, 0 or more, not {num_workers}.")
        self.root = None if root is None else root.expanduser()  # no shell has looked at a YAML file
        self.manifest = None if manifest is None else manifest.expanduser()
        self.positive_class = positive_class
        self.class_aliases, self.val_fraction, self.test_fraction = class_aliases, val_fraction, test_fraction
        self.unreadable, self.batch_size, self.augmentation = unreadable, batch_size, augmentation
        self.num_workers = granted_cpus() if num_workers == "auto" else num_workers
        self.image_size, self.seed = image_size, seed
        self.class_names: tuple[str, ...] = ()
        self.fingerprints: dict[str, str] = {}
        self.digests: dict[str, str] = {}
        self.metadata: dict[str, Metadata | None] = {}
        self.excluded: list[tuple[str, str]] = []
        self.validated = "val"
        self.collection: Collection | None = None

    def read_for_fit(self, check: Callable[[], None] = lambda: None, manifest: Path | None = None) -> None:
        """Find the photographs of all splits, check the classes, and decode every file once.

        Args:
            check: Called after each photograph; may raise to stop.
            manifest: The division of a run that goes on; its class names are those after aliases.

        Raises:
            DatasetError: Something about the photographs does not allow a training run.
        """
        if manifest is None:
            collection = self._read(whole=False)
        else:
            root = self.root or (None if self.manifest is None else self.manifest.parent)
            collection = read_manifest(manifest, root, None)
        check_trainable(collection)
        self.positive_class = check_positive_class(self.positive_class, collection.class_names)
        self.class_names = collection.class_names
        self.collection = self._verified(collection, check)
        check_trainable(self.collection)

    def read_for_evaluation(self, split: str, class_names: tuple[str, ...], *, whole: bool = False) -> None:
        """Find and decode the photographs of one split, with a checkpoint's classes.

        Args:
            split: `val`, `test`, or `predict` for every photograph below the root, labelled or not.
            class_names: The checkpoint's class names.
            whole: Take a flat folder undivided, as an external test set.

        Raises:
            DatasetError: The split is empty, its classes are not the checkpoint's, or a file cannot be decoded.
        """
        collection = read_unlabelled(self._require_root()) if split == "predict" else self._read(whole=whole)
        if not any(collection.splits.values()):
            raise DatasetError(no_photographs(collection))
        if not collection.splits.get(split):
            raise DatasetError(
                f"The {split} split in {show_path(collection.root)} is empty; there is: "
                f"{', '.join(f'{len(v)} in {k}' for k, v in collection.splits.items())}. Another labelled folder can "
                "be given with --data.root."
            )
        collection = Collection(collection.root, {split: collection.splits[split]}, collection.ignored, collection.heif)
        unknown = [name for name in collection.class_names if name not in class_names]
        if unknown:
            raise DatasetError(
                f"The classes in {show_path(collection.root)} are {', '.join(collection.class_names)}; the checkpoint "
                f"knows {', '.join(class_names)}. Match them by --data.class_aliases "
                f"'{{{unknown[0]}: {class_names[0]}, …}}'."
            )
        self.class_names = class_names
        self.collection = self._verified(collection)
        if not self.collection.splits[split]:
            raise DatasetError(f"Not one photograph in {show_path(collection.root)} can be read.")

    def train_dataloader(self) -> DataLoader[Item]:
        """Augmented batches in the order of the epoch."""
        rank, world_size = self._ranks()
        sampler = EpochSampler(len(self._samples("train")), self.seed, rank, world_size)
        # Lightning tells the sampler too late for a run that goes on: its first iterator is made before.
        sampler.set_epoch(self.trainer.current_epoch if self.trainer else 0)
        return self._loader("train", sampler, self.augmentation)

    def val_dataloader(self) -> DataLoader[Item]:
        """Validation batches, or those of `validated`, without augmentation and in the order listed."""
        return self._evaluation_loader(self.validated)

    def test_dataloader(self) -> DataLoader[Item]:
        """Test batches, in the order listed."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[Item]:
        """Batches without labels, in the order listed."""
        return self._evaluation_loader("predict")

    def class_counts(self) -> tuple[int, int]:
        """Number of negative and positive training photographs."""
        positive = sum(sample.class_name == self.positive_class for sample in self._samples("train"))
        return len(self._samples("train")) - positive, positive

    def _require_root(self) -> Path:
        if self.root is None:
            raise DatasetError("Where are the photographs? Give --data.root FOLDER (or --data.manifest FILE).")
        return self.root

    def _read(self, *, whole: bool) -> Collection:
        if self.manifest is not None:
            return read_manifest(self.manifest, self.root, self.class_aliases)
        return read_folders(
            self._require_root(),
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            aliases=self.class_aliases,
            whole=whole,
        )

    def _verified(self, collection: Collection, check: Callable[[], None] = lambda: None) -> Collection:
        samples = [sample for split in collection.splits.values() for sample in split]
        results = verify(samples, self.image_size, max(1, granted_cpus()))
        digests: dict[str, str] = {}
        self.metadata = {}
        bad: list[tuple[str, str]] = []
        for result in _progress(results, len(samples), "Checking photographs"):
            check()
            if result.reason:
                bad.append((result.sample.name, result.reason))
            else:
                digests[result.sample.name] = result.digest
                self.metadata[result.sample.name] = result.metadata
        if bad and self.unreadable == "error":
            raise DatasetError(
                f"{len(bad)} of {len(samples)} photographs in {show_path(collection.root)} cannot be read:\n"
                + "\n".join(f"  {show_path(name)}: {reason}" for name, reason in bad)
                + "\nReplace or remove them, or leave them out with --data.unreadable exclude."
            )
        self.excluded, self.digests = bad, digests
        collection = collection.without(name for name, _ in bad)
        self.fingerprints = {k: fingerprint(v, digests) for k, v in collection.splits.items()}
        return collection

    def _samples(self, split: str) -> tuple[Sample, ...]:
        if self.collection is None:
            raise RuntimeError("read_for_fit or read_for_evaluation comes first")
        return self.collection.splits[split]

    def _evaluation_loader(self, split: str) -> DataLoader[Item]:
        return self._loader(split, EvaluationSampler(len(self._samples(split)), *self._ranks()), None)

    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loader(
        self, split: str, sampler: EpochSampler | EvaluationSampler, augmentation: Augmentation | None
    ) -> DataLoader[Item]:
        dataset: Dataset[Item] = LeafDataset(
            self._samples(split), self.class_names, self.image_size, augmentation, self.seed
        )
        if split != "predict":
            assert self.positive_class is not None
            assert isinstance(dataset, LeafDataset)
            dataset = FlipLabels(dataset, self.class_names, self.positive_class)
        arguments: dict[str, Any] = {}
        if self.num_workers:
            arguments["persistent_workers"] = True
        return LeafLoader(
            dataset,
            # By keyword: for prediction Lightning makes the loader again and would pass a second one.
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            worker_init_fn=ignore_in_worker,
            pin_memory=torch.cuda.is_available(),
            # A loader of its own generator: the global one then advances the same whatever the number of workers.
            generator=torch.Generator().manual_seed(self.seed),
            **arguments,
        )


def granted_cpus() -> int:
    """CPUs that this process may use (a job's share, not the machine's), at most 16."""
    # Not on every system: macOS has no affinity.
    granted = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(16, granted)


def _progress(results: Iterable[Any], total: int, title: str) -> Iterable[Any]:
    progress: Callable[..., Iterable[Any]] = tqdm
    return progress(results, total=total, desc=title, unit="photo", leave=False, disable=None)
