"""Options by meaning: what people type who know other programs, and the option of bldml that they mean."""

from collections.abc import Collection
from difflib import get_close_matches

_MEANINGS: tuple[tuple[str, str], ...] = (
    # Option, what is typed for it. Of several options the first counts that the command has.
    ("ckpt_path", "ckpt checkpoint checkpoint_path ckpt_file model model_path weights weight run"),
    ("trainer.max_epochs", "epochs epoch max_epochs num_epochs n_epochs nb_epochs"),
    ("model.lr", "lr learning_rate lr0 base_lr"),
    ("model.weight_decay", "weight_decay wd"),
    ("model.backbone", "model arch architecture backbone net network model_name"),
    ("model.weights", "weights weight pretrained pretrained_weights"),
    ("model.image_size", "imgsz image_size img_size imagesize image_sz input_size resolution crop_size"),
    ("model.pos_weight", "pos_weight class_weight class_weights"),
    ("data.batch_size", "batch batch_size bs b train_batch_size"),
    ("workers", "workers num_workers n_workers jobs j"),
    ("data.num_workers", "workers num_workers n_workers jobs j"),
    ("device", "device gpu cuda"),
    ("trainer.accelerator", "device gpu cuda accelerator"),
    ("trainer.devices", "gpus devices num_gpus ngpus n_gpus"),
    ("trainer.precision", "precision amp fp16 half"),
    ("trainer.accumulate_grad_batches", "accumulate accumulation accumulate_grad_batches grad_accum"),
    ("name", "name run_name exp_name experiment evaluation"),
    ("run_name", "name run_name exp_name experiment"),
    ("output", "out output output_dir outdir out_dir output_folder save_dir dest project o"),
    ("trainer.default_root_dir", "out output output_dir outdir out_dir output_folder save_dir dest project o"),
    ("seed", "seed random_seed random_state"),
    ("seed_everything", "seed random_seed random_state"),
    (
        "data.root",
        "data data_dir data_root dataset root photographs photos images image folder source input i train_dir",
    ),
    ("manifest", "csv splits split_file"),
    ("data.manifest", "manifest csv splits split_file"),
    ("positive_class", "positive pos_class"),
    ("data.positive_class", "positive_class positive pos_class"),
    ("class_aliases", "aliases classes"),
    ("data.class_aliases", "class_aliases aliases classes"),
    ("unreadable", "skip_unreadable"),
    ("data.unreadable", "unreadable skip_unreadable"),
    ("data.val_fraction", "val_fraction val_split val"),
    ("data.test_fraction", "test_fraction test_split test"),
    ("test", "test_fraction test_split test_size"),
    ("val", "val_fraction val_split val_size"),
    ("folds", "folds fold k kfold n_folds n_splits"),
    ("data.fold", "fold folds kfold"),
    ("early_stopping.patience", "patience early_stopping early_stop"),
    ("operating_point.threshold", "threshold thr conf"),
    ("resume", "resume_from resume_from_checkpoint resume ckpt checkpoint ckpt_path"),
)
_SWITCHES = {"amp": "16-mixed", "fp16": "16-mixed", "half": "16-mixed", "pretrained": "imagenet"}


def nearest_option(typed: str, value: str, options: Collection[str]) -> str:
    """Return the option, with its value, that somebody means who types another one; empty if none is near.

    Args:
        typed: The option as typed, without its dashes; groups such as `trainer.` may be wrong.
        value: Value that was typed with it; empty if it had none.
        options: Options of the command, as dotted keys.

    >>> nearest_option("epochs", "20", ["trainer.min_epochs", "trainer.max_epochs"])
    '--trainer.max_epochs 20'
    >>> nearest_option("model.lrr", "0.1", ["model.lr", "data.root"])
    '--model.lr 0.1'
    >>> nearest_option("device", "cuda:0", ["trainer.accelerator"])
    '--trainer.accelerator gpu'
    """
    name = typed.rpartition(".")[2].replace("-", "_").lower()
    meant = next((option for option, words in _MEANINGS if option in options and name in words.split()), "")
    if not meant:
        # An option that differs in its group, or in a few letters.
        last = {option: option.rpartition(".")[2] for option in options}
        near = get_close_matches(name, last.values(), 1, 0.7)
        same = [option for option in options if [last[option]] == near]
        group = typed.rpartition(".")[0]
        own = [option for option in same if option.rpartition(".")[0] == group]
        meant = next(iter(own or (same if len(same) == 1 else [])), "")
    if not meant:
        return ""
    return f"--{meant} {_value(name, meant, value)}".rstrip()


def _value(name: str, option: str, value: str) -> str:
    """Return the value as the option that is meant takes it."""
    if option in ("trainer.accelerator", "device"):
        kind = "cpu" if value.lower() == "cpu" else "mps" if value.lower() == "mps" else "gpu"
        return {"gpu": "cuda"}.get(kind, kind) if option == "device" else kind
    if option == "data.fold" and "folds" in name:
        return f"0, with a manifest written by bldml split FOLDER --folds {value or 5}"
    if option == "fresh":  # takes none
        return ""
    return value or _SWITCHES.get(name, "")
