"""LeafDataModule: photographs on disk to batches."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

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
    check_positive_class,
    check_trainable,
    no_photographs,
)
from bldml.errors import ConfigError, DatasetError
from bldml.training.data.leafdataset import FlipLabels, Item, LeafDataset
from bldml.training.data.prepared import PreparedData
from bldml.training.data.reading import Storage, granted_cpus, read_photographs
from bldml.training.data.sampling import EpochSampler, EvaluationSampler, leaf_loader
from bldml.training.process import default_seed
from bldml.training.resume.signals import is_first_process
from bldml.training.transforms import Augmentation, resized_side

DEFAULT_AUGMENTATION = Augmentation()
# What of the data settings an evaluation takes from the checkpoint where the command line is silent.
DATA_SETTINGS = ("fold", "class_aliases", "val_fraction", "test_fraction", "unreadable", "batch_size")


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

    Attributes:
        prepared: The photographs, once they were read; `setup` reads them where nobody has before.
        validated: The split that a validation looks at.
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
        image_size: int | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        if not (0 < val_fraction < 1 and 0 <= test_fraction < 1 and val_fraction + test_fraction < 1):
            raise ConfigError(
                f"data.val_fraction {val_fraction} and data.test_fraction {test_fraction} must lie in (0, 1) and "
                "[0, 1) and leave something for training.",
                "fractions-wrong",
                val=val_fraction,
                test=test_fraction,
            )
        if fold is not None and manifest is None:
            message = f"data.fold {fold} needs a manifest with the column fold: --data.manifest splits.csv."
            raise ConfigError(message, "fold-without-manifest", found=fold)
        if batch_size < 1:
            message = f"data.batch_size must be at least 1, not {batch_size}."
            raise ConfigError(message, "batch-size-too-small", found=batch_size, expected=1)
        if num_workers != "auto" and num_workers < 0:
            message = f"data.num_workers must be auto, 0 or more, not {num_workers}."
            raise ConfigError(message, "workers-wrong", found=num_workers)
        # No shell has looked at a YAML file; outside the command line a path may be a text.
        self.root = None if root is None else Path(root).expanduser()
        self.manifest, self.fold = None if manifest is None else Path(manifest).expanduser(), fold
        self.positive_class = positive_class
        self.class_aliases, self.val_fraction, self.test_fraction = class_aliases, val_fraction, test_fraction
        self.on_leak = on_leak
        self.unreadable, self.batch_size, self.augmentation = unreadable, batch_size, augmentation
        self.num_workers = granted_cpus() if num_workers == "auto" else num_workers
        self.image_size, self.seed = image_size, default_seed() if seed is None else seed
        self.cache, self.cache_dir = cache, None if cache_dir is None else Path(cache_dir)
        self.prepared: PreparedData | None = None
        self.validated = "val"

    def setup(self, stage: str) -> None:
        """Read the photographs of this stage, unless somebody has read them before.

        Args:
            stage: fit, validate, test or predict, of Lightning.

        Raises:
            DatasetError: They cannot be used.
        """
        split = {"fit": "train", "validate": self.validated}.get(stage, stage)
        module: Any = self.trainer.lightning_module if self.trainer else None
        if self.image_size is None:
            self.image_size = getattr(module, "image_size", None)
        if self.prepared is not None and self.prepared.collection.splits.get(split):
            return
        if stage == "fit":
            self.read_for_fit()
        else:
            known = getattr(module, "description", {})
            self.positive_class = known.get("positive_class", self.positive_class)
            self.read_for_evaluation(split, tuple(known.get("class_names", ())))

    def find_for_fit(self) -> PreparedData:
        """Find the photographs of all splits and check the classes, without reading a file.

        Raises:
            DatasetError: A fit cannot use them.
        """
        return self._found(self._read(whole=False))

    def read_for_fit(
        self,
        check: Callable[[], None] = lambda: None,
        manifest: Path | None = None,
        excluded: Sequence[tuple[str, str]] = (),
    ) -> PreparedData:
        """Find the photographs of all splits, check the classes, and decode every file once.

        Args:
            check: Called after each photograph; may raise to stop.
            manifest: The division of a run that goes on; its class names are those after aliases.
            excluded: Photographs that such a run had left out.

        Raises:
            DatasetError: Something about the photographs does not allow a training run.
        """
        if manifest is None:
            found = self.find_for_fit()
            if self.manifest is not None and self.root is not None:
                found = replace(found, unlisted=tuple(unlisted(found.collection)))
        else:
            root = self.root or (None if self.manifest is None else self.manifest.parent)
            found = replace(self._found(read_manifest(manifest, root, None)), excluded=tuple(excluded))
        self.positive_class = found.positive_class
        prepared = self._verified(found, check, fit=True)
        check_trainable(prepared.collection)
        self.prepared = prepared
        return prepared

    def read_for_evaluation(
        self, split: str, class_names: tuple[str, ...] = (), *, whole: bool = False
    ) -> PreparedData:
        """Find and decode the photographs of one split, with a checkpoint's classes.

        Args:
            split: `val`, `test`, or `predict` for every photograph below the root, labelled or not.
            class_names: The checkpoint's class names; empty for those that are found.
            whole: Take a flat folder undivided, as an external test set.

        Raises:
            DatasetError: The split is empty, its classes are not the checkpoint's, or a file cannot be decoded.
        """
        collection = read_unlabelled(self._require_root()) if split == "predict" else self._read(whole=whole)
        if not any(collection.splits.values()):
            raise DatasetError(no_photographs(collection), "photographs-none", path=collection.root)
        if not collection.splits.get(split):
            raise DatasetError(
                f"The {split} split in {show_path(collection.root)} is empty; there is: "
                f"{', '.join(f'{len(v)} in {k}' for k, v in collection.splits.items())}. Another labelled folder can "
                "be given with --data.root.",
                "split-empty",
                path=collection.root,
                split=split,
            )
        collection = replace(collection, splits={split: collection.splits[split]})
        unknown = [name for name in collection.class_names if class_names and name not in class_names]
        if unknown:
            raise DatasetError(
                f"The classes in {show_path(collection.root)} are {', '.join(collection.class_names)}; the checkpoint "
                f"knows {', '.join(class_names)}. Match them by --data.class_aliases "
                f"'{{{unknown[0]}: {class_names[0]}, …}}'.",
                "classes-of-other-checkpoint",
                path=collection.root,
                found=[*collection.class_names],
                expected=[*class_names],
            )
        if not class_names and split != "predict":
            class_names = collection.class_names
            self.positive_class = check_positive_class(self.positive_class, class_names)
        found = PreparedData(collection, Contents(0), class_names, self.positive_class)
        prepared = self._verified(found)
        if not prepared.samples(split):
            message = f"Not one photograph in {show_path(collection.root)} can be read."
            raise DatasetError(message, "photographs-all-unreadable", path=collection.root)
        self.prepared = prepared
        return prepared

    @property
    def photographs(self) -> PreparedData:
        """What was read.

        Raises:
            RuntimeError: Nothing yet.
        """
        if self.prepared is None:
            raise RuntimeError("read_for_fit, read_for_evaluation or setup comes first")
        return self.prepared

    def describe(self) -> dict[str, Any]:
        """What a checkpoint says of the photographs: that part of its `Header`."""
        data = self.photographs
        settings = {key: getattr(self, key) for key in DATA_SETTINGS}
        for key in ("root", "manifest"):
            path = getattr(self, key)
            settings[key] = None if path is None else str(path.absolute())
        return {
            "class_names": data.class_names,
            "positive_class": data.positive_class,
            "fingerprints": data.dataset_digests,
            "seen": data.seen_digests(),
            "settings": {"data": settings},
        }

    def train_dataloader(self) -> DataLoader[Item]:
        """Augmented batches in the order of the epoch."""
        rank, world_size = self._ranks()
        sampler = EpochSampler(len(self.photographs.samples("train")), self.seed, rank, world_size)
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

    def _require_root(self) -> Path:
        if self.root is None:
            raise DatasetError(
                "Where are the photographs? Give --data.root FOLDER (or --data.manifest FILE).", "data-root-not-given"
            )
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

    def _found(self, collection: Collection) -> PreparedData:
        check_trainable(collection)
        if self.cache == "auto":
            check_place(self.cache_dir, collection, by_folders=self.manifest is None)
        positive = check_positive_class(self.positive_class, collection.class_names)
        unread = Contents(sum(map(len, collection.splits.values())))
        return PreparedData(collection, unread, collection.class_names, positive)

    def _verified(
        self, found: PreparedData, check: Callable[[], None] = lambda: None, *, fit: bool = False
    ) -> PreparedData:
        collection = found.collection
        folders = find_folders(self.cache_dir, collection.root) if self.cache == "auto" else []
        # An evaluation reads each photograph once: it uses cached images and adds none.
        sides = {"train": resized_side(self._side, self.augmentation)} if fit else {}
        storage = Storage(folders, sides, write=fit and is_first_process())
        reading = read_photographs(
            collection, self._side, granted_cpus(), storage, check, exclude=self.unreadable == "exclude"
        )
        check_unchanged(reading.collection, reading.contents.digests)
        return replace(
            found,
            collection=reading.collection,
            contents=reading.contents,
            excluded=(*found.excluded, *reading.excluded),
            cache_folders=tuple(folders),
        )

    @property
    def _side(self) -> int:
        return 224 if self.image_size is None else self.image_size

    def _evaluation_loader(self, split: str) -> DataLoader[Item]:
        sampler = EvaluationSampler(len(self.photographs.samples(split)), *self._ranks())
        # Without gradients twice as many photographs need less memory than a training batch.
        return self._loader(split, sampler, None, 2 * self.batch_size)

    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loader(
        self, split: str, sampler: Sampler[tuple[int, int]], augmentation: Augmentation | None, batch_size: int
    ) -> DataLoader[Item]:
        data = self.photographs
        # Only now: at the start of training this process waited for the first one, which fills the cache.
        side, found, folders = resized_side(self._side, augmentation), data.contents_of(split), data.cache_folders
        known = CachedImages(folders, side, self._side, found.digests) if folders else None
        dataset: Dataset[Item] = LeafDataset(
            data.samples(split), data.class_names, self._side, augmentation, self.seed, known, found.metadata.aspects()
        )
        if split != "predict":
            assert data.positive_class is not None
            assert isinstance(dataset, LeafDataset)
            dataset = FlipLabels(dataset, data.class_names, data.positive_class)
        return leaf_loader(dataset, sampler, batch_size, self.num_workers, self.seed)
