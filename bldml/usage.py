"""The help of fit, validate, test and predict: the options that people use, written without loading torch.

`--help=all` lists every option, as the parser knows it.
"""

import shutil
import textwrap

from bldml.io.grammar import pattern

_Row = tuple[str, str, str]  # option and value, description, default in words (empty: not shown)

_CHECKPOINT: _Row = ("CHECKPOINT", "Checkpoint, or a run folder for its best one. Also: --ckpt_path.", "")
_MANIFEST: _Row = ("--manifest FILE", "CSV with the split of each photograph, as written by split.", "")
_ALIASES: _Row = ("--class_aliases MAP", "Class name by folder name, such as '{1_BLD: BLD}'.", "")
_UNREADABLE = "Stop at damaged photographs (error), or leave them out (exclude)."
_LOADERS: _Row = ("--data.num_workers N", "Processes that load photographs.", "auto")
_ACCELERATOR: _Row = ("--trainer.accelerator NAME", "Device: auto, cpu or gpu.", "auto")
_FIT: tuple[_Row, ...] = (
    ("PHOTOGRAPHS", "Folder with two class folders, or with train, val and test. Also: --data.root.", ""),
    ("--config FILE", "Configuration; may be repeated, later files override earlier ones.", ""),
    _MANIFEST,
    ("--positive_class NAME", "Class to detect, such as BLD.", ""),
    _ALIASES,
    ("--unreadable RULE", _UNREADABLE, "error"),
    ("--model.backbone NAME", "Network: efficientnet_v2_s, resnet50, mobilenet_v3_large, inception_v3, "
     "mobilenet_v2_x0_35, or timm:NAME.", "efficientnet_v2_s"),
    ("--model.image_size PX", "Side of the resized image.", "that of the backbone"),
    ("--data.batch_size N", "Photographs in a training batch.", "16"),
    ("--trainer.max_epochs N", "Maximum number of epochs.", "100"),
    _ACCELERATOR,
    ("--run_name NAME", "Name of the run folder.", "backbone and time"),
    ("--output FOLDER", "Folder for lightning_logs/, which holds the run folders.", "the current folder"),
    ("--resume RUN", "Resume this run folder with its own configuration.", ""),
)  # fmt: skip
_EVALUATION: tuple[_Row, ...] = (
    _CHECKPOINT,
    ("PHOTOGRAPHS", "Another labelled folder instead of the run's own. Also: --data.root.", ""),
    _MANIFEST,
    _ALIASES,
    ("--unreadable RULE", _UNREADABLE, "as in training"),
    ("--name NAME", "Name of this evaluation.", "that of the split or folder"),
    ("--site TEXT", "Where and when photographs of others were taken, such as \"Ohio 2024\".", ""),
    ("--output FOLDER", "Output folder.", "evaluations/<name> in the run folder"),
    ("--report BOOL", "Write report.html and images of errors.", "true"),
    _LOADERS,
    _ACCELERATOR,
)  # fmt: skip
_PREDICT: tuple[_Row, ...] = (
    _CHECKPOINT,
    ("PHOTOGRAPHS", "One photograph, or a folder with its subfolders. Also: --data.root.", ""),
    *(row for row in _EVALUATION if row[0].startswith(("--unreadable", "--name", "--output"))),
    ("--data.batch_size N", "Photographs in a batch.", "as in training"),
    _LOADERS,
    _ACCELERATOR,
)
VERB_HELP: dict[str, tuple[str, tuple[_Row, ...], str]] = {
    "fit": ("Train a classifier on labelled photographs; writes a run folder.", _FIT,
        "--config configs/efficientnet.yaml --data.root data/BLD --positive_class BLD"),
    "validate": ("Evaluate a checkpoint on its validation split.", _EVALUATION, "lightning_logs/<run>"),
    "test": ("Evaluate a checkpoint on its test split or on another labelled folder.", _EVALUATION,
        "lightning_logs/<run> data/other_site --site \"Ohio 2024\""),
    "predict": ("Classify unlabelled photographs in a folder and its subfolders.", _PREDICT,
        "lightning_logs/<run> photographs/"),
}  # fmt: skip


def verb_help(verb: str) -> str:
    """Return the short help of a verb for the width of this terminal."""
    what, rows, example = VERB_HELP[verb]
    column = max(len(option) for option, _, _ in rows) + 4
    width = max(60, min(shutil.get_terminal_size().columns, 100))
    lines = [f"usage: {pattern(verb)}", "", what, ""]
    for option, text, default in rows:
        shown = f"{text[:-1]} (default: {default})." if default else text
        lines += textwrap.wrap(shown, width, initial_indent=f"  {option:{column - 2}}", subsequent_indent=" " * column)
    lines += ["", "Example:", f"  python -m bldml {verb} {example}", ""]
    lines.append(f"bldml {verb} --help=all lists all options.")
    return "\n".join(lines) + "\n"
