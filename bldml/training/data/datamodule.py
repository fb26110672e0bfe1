"""LeafDataModule: photographs on disk to batches."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler

from bldml.dataset.cache.location import check_place, find_folders
from bldml.dataset.cache.reader import CachedImages
from bldml.dataset.contents import Contents
from bldml.dataset.files import show_path
from bldml.dataset.folders import read_folders, read_unlabelled
from bldml.dataset.manifest import check_unchanged, read_manifest, unlisted
from bldml.dataset.samples import (
    Collection,
    Sample,
    check_positive_class,
    check_trainable,
    dataset_digest,
    no_photographs,
)
from bldml.errors import DatasetError
from bldml.training.data.leafdataset import FlipLabels, Item, LeafDataset
from bldml.training.data.reading import Storage, granted_cpus, read_photographs
from bldml.training.data.sampling import EpochSampler, EvaluationSampler, leaf_loader
from bldml.training.resume.signals import is_first_process
from bldml.training.transforms import Augmentation, squashed_side

DEFAULT_AUGMENTATION = Augmentation()


class LeafDataModule(LightningDataModule):
    """The photographs: where they are, what they are called, how they are divided and fed.

    Args:
        root: Folder with train/val/test folders of class folders, or with one folder a class (then divided by a fixed
            rule), or where a manifest's paths start.
        manifest: CSV with the columns path, label, split and perhaps group, instead of the folders.
        fold: Number in the manifest's column fold: this fold becomes val, all others outside test train.
        positive_class: Name of the class that is to be found, such as BLD.
        class_aliases: Class name for a folder's name or a manifest's label, where they differ, such as {1_BLD: BLD}.
        val_fraction: Share of a flat folder that becomes the validation split, in (0, 1).
        test_fraction: Share of a flat folder that becomes the test split, in [0, 1); 0 for none.
        unreadable: What to do when a photograph cannot be decoded: stop with the full list (error), or leave them out
            and list them in the run folder (exclude).
        on_leak: What to do when photographs of one split are in another as well, the same, nearly the same or of the
            same burst, or those of an external set in training: warn, stop (error), or not look for them (off).
        batch_size: Photographs in a training batch.
        num_workers: Processes that load photographs; auto takes the CPUs that this job was granted, at most 16.
        augmentation: How training pictures vary; null for not at all.
        cache: Cache decoded images on disk for the next epochs and runs, where there is room (auto), or not (off).
        cache_dir: Folder for them; null for that of the environment variable BLDML_CACHE, else .bldml_cache beside the
            data folder, else in the working directory.
        image_size: Side in pixels (taken from the model).
        seed: Seed of order and augmentation (taken from seed_everything).
    """

    def __init__(
        self,
        root: Path | None = None,
        manifest: Path | None = None,
        fold: int | None = None,
        positive_class: str | None = None,
        class_aliases: dict[str, str] | None = None,
        val_fraction: float = 0.2,
        test_fraction: float = 0.2,
        unreadable: Literal["error", "exclude"] = "error",
        on_leak: Literal["warn", "error", "off"] = "warn",
        batch_size: int = 16,
        num_workers: int | Literal["auto"] = "auto",
        augmentation: Augmentation | None = DEFAULT_AUGMENTATION,
        cache: Literal["auto", "off"] = "auto",
        cache_dir: Path | None = None,
        image_size: int = 224,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not (0 < val_fraction < 1 and 0 <= test_fraction < 1 and val_fraction + test_fraction < 1):
            raise DatasetError(
                f"data.val_fraction {val_fraction} and data.test_fraction {test_fraction} must lie in (0, 1) and "
                "[0, 1) and leave something for training."
            )
        if fold is not None and manifest is None:
            raise DatasetError(f"data.fold {fold} needs a manifest with the column fold: --data.manifest splits.csv.")
        if batch_size < 1:
            raise DatasetError(f"data.batch_size must be at least 1, not {batch_size}.")
        if num_workers != "auto" and num_workers < 0:
            raise DatasetError(f"data.num_workers must be auto, 0 or more, not {num_workers}.")
        self.root = None if root is None else root.expanduser()  # no shell has looked at a YAML file
        self.manifest, self.fold = None if manifest is None else manifest.expanduser(), fold
        self.positive_class = positive_class
        self.class_aliases, self.val_fraction, self.test_fraction = class_aliases, val_fraction, test_fraction
        self.on_leak = on_leak
        self.unreadable, self.batch_size, self.augmentation = unreadable, batch_size, augmentation
        self.num_workers = granted_cpus() if num_workers == "auto" else num_workers
        self.image_size, self.seed = image_size, seed
        self.cache, self.cache_dir = cache, cache_dir
        self.folders: list[Path] = []
        self.class_names: tuple[str, ...] = ()
        self.dataset_digests: dict[str, str] = {}
        self.contents = Contents(0)  # split after split
        self.excluded: list[tuple[str, str]] = []
        self.unlisted: list[Path] = []
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
        collection = self.find_for_fit(manifest)
        if manifest is None and self.manifest is not None and self.root is not None:
            self.unlisted = unlisted(collection)
        self.collection = self._verified(collection, check, fit=True)
        check_trainable(self.collection)

    def find_for_fit(self, manifest: Path | None = None) -> Collection:
        """Find the photographs of all splits, and check classes and cache folder; see `read_for_fit`. Decodes nothing.

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
        if self.cache == "auto":
            check_place(self.cache_dir, collection, by_folders=self.manifest is None)
        return collection

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
        collection = replace(collection, splits={split: collection.splits[split]})
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

    def contents_of(self, split: str) -> Contents:
        """What the files of a split hold, in the order of its samples."""
        assert self.collection is not None
        lengths = {name: len(samples) for name, samples in self.collection.splits.items()}
        start = sum(lengths[name] for name in list(lengths)[: list(lengths).index(split)])
        return self.contents[start : start + lengths[split]]

    def train_dataloader(self) -> DataLoader[Item]:
        """Augmented batches in the order of the epoch."""
        rank, world_size = self._ranks()
        sampler = EpochSampler(len(self._samples("train")), self.seed, rank, world_size)
        # Lightning tells the sampler too late for a run that goes on: its first iterator is made before.
        sampler.set_epoch(self.trainer.current_epoch if self.trainer else 0)
        return self._loader("train", sampler, self.augmentation, self.batch_size)

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
            return read_manifest(self.manifest, self.root, self.class_aliases, self.fold)
        return read_folders(
            self._require_root(),
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            aliases=self.class_aliases,
            whole=whole,
        )

    def _verified(
        self, collection: Collection, check: Callable[[], None] = lambda: None, *, fit: bool = False
    ) -> Collection:
        folders = find_folders(self.cache_dir, collection.root) if self.cache == "auto" else []
        # An evaluation reads each photograph once: it uses cached images and adds none.
        sides = {"train": squashed_side(self.image_size, self.augmentation)} if fit else {}
        storage = Storage(folders, sides, write=fit and is_first_process())
        reading = read_photographs(
            collection, self.image_size, granted_cpus(), storage, check, exclude=self.unreadable == "exclude"
        )
        check_unchanged(reading.collection, reading.contents.digests)
        self.collection, self.contents, self.excluded = reading.collection, reading.contents, reading.excluded
        self.folders = folders
        splits = reading.collection.splits
        self.dataset_digests = {k: dataset_digest(v, self.contents_of(k).digests) for k, v in splits.items()}
        return reading.collection

    def _samples(self, split: str) -> Sequence[Sample]:
        if self.collection is None:
            raise RuntimeError("read_for_fit or read_for_evaluation comes first")
        return self.collection.splits[split]

    def _evaluation_loader(self, split: str) -> DataLoader[Item]:
        sampler = EvaluationSampler(len(self._samples(split)), *self._ranks())
        # Without gradients twice as many photographs need less memory than a training batch.
        return self._loader(split, sampler, None, 2 * self.batch_size)

    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loader(
        self, split: str, sampler: Sampler[tuple[int, int]], augmentation: Augmentation | None, batch_size: int
    ) -> DataLoader[Item]:
        samples = self._samples(split)
        # Only now: at the start of training this process waited for the first one, which fills the cache.
        side = squashed_side(self.image_size, augmentation)
        found = self.contents_of(split)
        known = CachedImages(self.folders, side, self.image_size, found.digests) if self.folders else None
        dataset: Dataset[Item] = LeafDataset(
            samples, self.class_names, self.image_size, augmentation, self.seed, known, found.metadata.aspects()
        )
        if split != "predict":
            assert self.positive_class is not None
            assert isinstance(dataset, LeafDataset)
            dataset = FlipLabels(dataset, self.class_names, self.positive_class)
        return leaf_loader(dataset, sampler, batch_size, self.num_workers, self.seed)
