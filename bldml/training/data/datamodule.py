"""LeafDataModule: from photographs on disk to batches."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader, Sampler

from bldml.dataset.cache.format import CachedImages
from bldml.dataset.cache.location import check_place, find_folders
from bldml.dataset.contents import Contents
from bldml.dataset.files import show_path
from bldml.dataset.folders import read_folders, read_unlabelled
from bldml.dataset.images import Decode, decoding_size
from bldml.dataset.manifest import check_unchanged, read_manifest, unlisted
from bldml.dataset.samples import Collection, check_positive_class, check_trainable, no_photographs
from bldml.errors import ConfigError, DatasetError
from bldml.io.arguments import check_choices
from bldml.training.checkpoint import DATA_SETTINGS, LARGEST_BATCH
from bldml.training.data.loading import EpochSampler, EvaluationSampler, Item, LeafDataset, check_batches, leaf_loader
from bldml.training.data.reading import Geometry, PreparedData, granted_cpus, read_photographs
from bldml.training.process import default_seed
from bldml.training.resume.signals import is_first_process
from bldml.training.transforms import Augmentation, resized_side

DEFAULT_AUGMENTATION = Augmentation()
MOST_WORKERS = 256


class LeafDataModule(LightningDataModule):
    """Photographs: location, class names, splits and loading.

    Args:
        root: Folder with train/val/test folders of class folders; or with one folder per class, which a fixed rule
            then splits; or the folder that a manifest's paths are relative to.
        manifest: CSV with the columns path, label, split and, optionally, group; replaces the folder layout.
        fold: Number in the manifest's column fold: this fold becomes val, all others except test become train.
        positive_class: Name of the positive class, such as BLD.
        class_aliases: Class names for folder names or manifest labels that differ from them, such as {1_BLD: BLD}.
        val_fraction: Fraction of a flat folder that becomes the validation split, in (0, 1).
        test_fraction: Fraction of a flat folder that becomes the test split, in [0, 1); 0 for none.
        unreadable: What to do if photographs cannot be decoded: end with an error that lists them all (error), or
            exclude them and list them in the run folder (exclude).
        on_leak: What to do if a photograph, a near duplicate of it or its burst is in two splits, or in an external set
            and the training data: warn, end with an error (error), or do not search (off).
        batch_size: Photographs in a training batch.
        num_workers: Processes that load photographs; auto uses the CPUs allocated to this job, at most 16.
        augmentation: Training augmentation; null turns it off.
        cache: Cache decoded images on disk for later epochs and runs if there is space (auto), or never (off).
        cache_dir: Folder of the cache; null for the one in the environment variable BLDML_CACHE, else .bldml_cache
            beside the data folder, else in the working directory.
        image_size: Side of the input image in pixels (set by the model).
        seed: Seed of order and augmentation (set by seed_everything).

    Attributes:
        prepared: The photographs; None until `setup` or one of the `read_` methods has read them.
        validated: The split that a validation uses.
        evaluated: Number of photographs that an evaluation skips, because it was interrupted after them.
        decode: How evaluations decode a JPEG; that of the checkpoint, for an evaluation.
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
        words = {"unreadable": unreadable, "on_leak": on_leak, "num_workers": num_workers, "cache": cache}
        check_choices("data", LeafDataModule.__init__, words)
        if not (0 < val_fraction < 1 and 0 <= test_fraction < 1 and val_fraction + test_fraction < 1):
            message = f"data.val_fraction {val_fraction} and data.test_fraction {test_fraction} must lie in (0, 1) and "
            message += "[0, 1) and leave something for training."
            raise ConfigError(message, "fractions-wrong", val=val_fraction, test=test_fraction)
        if fold is not None and manifest is None:
            message = f"data.fold {fold} needs a manifest with the column fold: --data.manifest splits.csv."
            raise ConfigError(message, "fold-without-manifest", found=fold)
        if not 1 <= batch_size <= LARGEST_BATCH:
            message = f"data.batch_size must be from 1 to {LARGEST_BATCH}, not {batch_size}."
            raise ConfigError(message, "batch-size-wrong", found=batch_size, expected=1)
        if num_workers != "auto" and not 0 <= num_workers <= MOST_WORKERS:
            message = f"data.num_workers must be auto or from 0 to {MOST_WORKERS}, not {num_workers}."
            raise ConfigError(message, "workers-wrong", found=num_workers, expected=MOST_WORKERS)
        # No shell expands ~ in a YAML file; outside the command line a path may be a str.
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
        self.validated, self.evaluated = "val", 0
        self.decode: Decode = "full"

    def setup(self, stage: str) -> None:
        """Read the photographs for Lightning's stage (fit, validate, test or predict), unless they have been read."""
        split = {"fit": "train", "validate": self.validated}.get(stage, stage)
        module: Any = self.trainer.lightning_module if self.trainer else None
        if self.image_size is None:
            self.image_size = getattr(module, "image_size", None)
        if self.prepared is not None and self.prepared.collection.splits.get(split):
            return
        if stage == "fit":
            self.read_for_fit()
        else:
            description = getattr(module, "description", {})
            self.positive_class = description.get("positive_class", self.positive_class)
            self.decode = getattr(module, "decode", self.decode)
            self.read_for_evaluation(split, tuple(description.get("class_names", ())))

    def find_for_fit(self) -> PreparedData:
        """Find the photographs of all splits and check the classes (DatasetError), without reading any photograph."""
        return self._found(self._read())

    def read_for_fit(
        self,
        check: Callable[[], None] = lambda: None,
        manifest: Path | None = None,
        excluded: Sequence[tuple[str, str]] = (),
    ) -> PreparedData:
        """Find the photographs of all splits, check the classes, and decode every file once.

        Args:
            check: Called after each photograph; may raise an exception to interrupt.
            manifest: Split assignments of a resumed run; aliases have already been applied to its class names.
            excluded: Photographs that the resumed run excluded, with reasons.

        Raises:
            DatasetError: The photographs cannot be used for training.
        """
        if manifest is None:
            found = self.find_for_fit()
            if self.manifest is not None and self.root is not None:
                with suppress(DatasetError):  # a folder of somebody else below it, from which nothing is read
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
        self,
        split: str,
        class_names: tuple[str, ...] = (),
        check: Callable[[], None] = lambda: None,
        *,
        whole: bool = False,
    ) -> PreparedData:
        """Find and decode the photographs of one split, with the classes of a checkpoint.

        Args:
            split: `val`, `test`, or `predict` for every photograph below the root, labelled or not.
            class_names: The checkpoint's class names; empty to use those of the photographs.
            check: Called after each photograph; may raise an exception to interrupt.
            whole: Use a flat folder without splitting it, as an external test set.

        Raises:
            DatasetError: The split is empty, its classes are not the checkpoint's, or a file cannot be decoded.
        """
        collection = self._read(split, whole=whole)
        if not any(collection.splits.values()):
            raise DatasetError(no_photographs(collection), "photographs-none", path=collection.root)
        if not collection.splits.get(split):
            found = ", ".join(f"{len(samples)} in {name}" for name, samples in collection.splits.items())
            message = f"The {split} split in {show_path(collection.root)} is empty. Photographs found: {found}. "
            message += "Set another labelled folder with --data.root."
            raise DatasetError(message, "split-empty", path=collection.root, split=split)
        collection = replace(collection, splits={split: collection.splits[split]})
        unknown = [name for name in collection.class_names if class_names and name not in class_names]
        if unknown:
            raise DatasetError(
                f"The classes in {show_path(collection.root)} are {', '.join(collection.class_names)}; the checkpoint "
                f"has {', '.join(class_names)}. Match them with --data.class_aliases: for example "
                f"'{{{unknown[0]}: {class_names[0]}}}', if {unknown[0]} means {class_names[0]}.",
                "classes-of-other-checkpoint",
                path=collection.root,
                found=[*collection.class_names],
                expected=[*class_names],
            )
        if not class_names and split != "predict":
            class_names = collection.class_names
            self.positive_class = check_positive_class(self.positive_class, class_names)
        prepared = self._verified(PreparedData(collection, Contents(0), class_names, self.positive_class), check)
        if not prepared.samples(split):
            message = f"Not one photograph in {show_path(collection.root)} can be read."
            raise DatasetError(message, "photographs-all-unreadable", path=collection.root)
        self.prepared = prepared
        return prepared

    @property
    def photographs(self) -> PreparedData:
        """The photographs that were read; a RuntimeError if there are none yet."""
        if self.prepared is None:
            raise RuntimeError("read_for_fit, read_for_evaluation or setup comes first")
        return self.prepared

    def describe(self) -> dict[str, Any]:
        """Return the fields of a checkpoint's `Header` that describe the photographs."""
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
        """Return the loader of augmented training batches, in the order of the epoch."""
        rank, world_size = self._ranks()
        sampler = EpochSampler(len(self.photographs.samples("train")), self.seed, rank, world_size)
        # Lightning sets the epoch too late for a resumed run: the first iterator is created before.
        sampler.set_epoch(self.trainer.current_epoch if self.trainer else 0)
        return self._loader("train", sampler, self.augmentation, self.batch_size)

    def val_dataloader(self) -> DataLoader[Item]:
        """Return the loader of the split `validated`, without augmentation, in the listed order."""
        return self._evaluation_loader(self.validated)

    def test_dataloader(self) -> DataLoader[Item]:
        """Return the loader of test batches, in the listed order."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[Item]:
        """Return the loader of batches without labels, in the listed order."""
        return self._evaluation_loader("predict")

    def _read(self, split: str = "", *, whole: bool = False) -> Collection:
        if self.manifest is not None and split != "predict":
            return read_manifest(self.manifest, self.root, self.class_aliases, self.fold)
        if self.root is None:
            message = "Where are the photographs? Give --data.root FOLDER (or --data.manifest FILE)."
            raise ConfigError(message, "data-root-not-given")
        if split == "predict":
            return read_unlabelled(self.root)
        fractions = {"val_fraction": self.val_fraction, "test_fraction": self.test_fraction}
        return read_folders(self.root, **fractions, aliases=self.class_aliases, whole=whole)

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
        if self.image_size is None:
            rank_zero_info(f"The data module has no image_size and no model: its images have {self._side} px.")
        if self.cache == "auto":
            found = replace(found, cache_folders=tuple(find_folders(self.cache_dir, found.collection.root)))
        # An evaluation reads each photograph once: it uses cached images and adds none.
        geometries = {name: self._geometry(None) for name in found.collection.splits}
        if fit:
            geometries["train"] = self._geometry(self.augmentation)
        write, exclude = fit and is_first_process(), self.unreadable == "exclude"
        prepared = read_photographs(found, self._side, geometries, check, exclude=exclude, write=write)
        check_unchanged(prepared.collection, prepared.contents.digests)
        return prepared

    def _geometry(self, augmentation: Augmentation | None) -> Geometry:
        """Return the geometry of the images; training decodes at a reduced scale, which its crops do not show."""
        full = self._side if augmentation else decoding_size(self.decode, self._side)
        return resized_side(self._side, augmentation), full

    @property
    def _side(self) -> int:
        return 224 if self.image_size is None else self.image_size

    def _evaluation_loader(self, split: str) -> DataLoader[Item]:
        sampler = EvaluationSampler(len(self.photographs.samples(split)), *self._ranks(), self.evaluated)
        return self._loader(split, sampler, None, self.evaluation_batch)

    @property
    def evaluation_batch(self) -> int:
        """Photographs in a batch of an evaluation: without gradients, twice as many need less memory than training."""
        return 2 * self.batch_size

    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loader(
        self, split: str, sampler: Sampler[tuple[int, int]], augmentation: Augmentation | None, batch_size: int
    ) -> DataLoader[Item]:
        data, contents = self.photographs, self.photographs.contents_of(split)
        check_batches(min(batch_size, len(data.samples(split))), self._side, self.num_workers)
        # Only now: at the start of training this process waited for the first process, which fills the cache.
        folders = data.cache_folders
        cached = CachedImages(folders, *self._geometry(augmentation), contents.digests) if folders else None
        dataset = LeafDataset(
            data.samples(split), data.positive_class, self._side, augmentation, self.seed, cached,
            contents.metadata.aspects(), self.decode, contents.digests if contents.digests.raw.any() else None,
        )  # fmt: skip
        return leaf_loader(dataset, sampler, batch_size, self.num_workers, self.seed)
