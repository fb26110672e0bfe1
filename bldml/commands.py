"""The plain commands: typed functions whose docstrings are their help. Each imports what it needs when called."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from bldml import __version__
from bldml.errors import BldmlError, DatasetError, UsageError
from bldml.io.screen import say
from bldml.io.text import counted


def demo(folder: Path, images_per_class: int = 400, size: int = 256, seed: int = 0) -> None:
    """Draw healthy and diseased beech leaves as a dataset for trying bldml.

    Args:
        folder: Output folder (new or empty).
        images_per_class: Number of photographs per class.
        size: Longer side of a photograph in pixels.
        seed: Random seed; the same seed draws the same leaves.
    """
    from bldml.dataset.files import shell_word
    from bldml.dataset.synthetic.leaves import write_leaves

    count = write_leaves(folder, images_per_class=images_per_class, size=size, seed=seed)
    say(
        f"Wrote {count} photographs of drawn leaves to {folder}. Next:\n"
        f"  python -m bldml fit --config configs/demo.yaml --data.root {shell_word(folder)}\n"
    )


def prefetch(backbone: str = "all", to: Path | None = None) -> None:
    """Download the ImageNet weights of backbones, for compute nodes without internet.

    Args:
        backbone: Name of a backbone, or all.
        to: Folder to save in, for use as TORCH_HOME; null uses torch's own cache.
    """
    from bldml.training.weights import fetch_weights as fetch

    fetch(backbone, to)


def compare(runs: list[Path], evaluation: str | None = None, output: Path = Path("comparison")) -> None:
    """Compare runs on the same photographs: intervals, paired differences and tests.

    Args:
        runs: Run folders (two or more).
        evaluation: Name of an evaluation that every run has; null uses the test split of each run.
        output: Output folder for comparison.html, comparison.csv, differences.csv, comparison.tex and figures/.
    """
    from bldml.report.comparison.compare import compare_runs
    from bldml.report.comparison.page import write_comparison

    written = write_comparison(compare_runs(runs, evaluation), output, version=__version__)
    say("".join(f"Wrote {path}\n" for path in written))


def report(run: Path) -> None:
    """Rewrite the report of a run from the files in its folder.

    Args:
        run: Run folder.
    """
    from bldml.report.page import write_report
    from bldml.run.folder import RunFolder
    from bldml.run.gallery import advice
    from bldml.run.reader import read_run

    folder = RunFolder(run)
    say(f"Wrote {write_report(folder)}\n{advice(read_run(folder))}")


def explain(
    ckpt_path: Path,
    photographs: Path,
    output: Path = Path("cams"),
    masks: Path | None = None,
    unreadable: Literal["error", "exclude"] = "error",
    format: Literal["png", "jpeg"] = "png",
    size: int | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Draw Grad-CAM heat maps for a folder of photographs.

    Args:
        ckpt_path: Checkpoint, or a run folder for its best one (also: --ckpt_path).
        photographs: Folder with photographs, including its subfolders, or one photograph.
        output: Output folder for overlays, contact sheet and table (new or empty, or of this command, to resume it).
        masks: Folder of masks (black background, green leaf, red lesion) named NAME_mask.png or NAME.png.
        unreadable: Stop at photographs that cannot be read (error), or leave them out (exclude).
        format: Format of the images.
        size: Longer side of the images in pixels; null keeps that of the photograph.
        device: Device to compute on; auto uses a GPU if there is one.
    """
    from bldml.app.explain.command import explain_folder
    from bldml.app.explain.output import ImageFormat

    explain_folder(
        ckpt_path, photographs, output, ImageFormat(format, size), masks, device,
        exclude_unreadable=unreadable == "exclude",
    )  # fmt: skip


def export(
    ckpt_path: Path,
    format: Literal["onnx", "web"] = "onnx",
    output: Path = Path("export"),
    weights: Literal["fp32", "fp16", "int8"] = "fp32",
    photographs: Path | None = None,
) -> None:
    """Export a classifier as an ONNX file, or as a page that classifies photographs offline in a browser.

    The export is compared with the checkpoint first, and refused if a verdict changes.

    Args:
        ckpt_path: Checkpoint, or a run folder for its best one (also: --ckpt_path).
        format: An ONNX file (onnx), or a page: a folder, and the same in one file (web).
        output: Output folder (new or empty).
        weights: How weights are stored; fp16 halves the file, int8 makes it a third, and is often refused. All is
            computed in float32 either way.
        photographs: Folder of photographs to compare on; null uses the validation split of the checkpoint's run.
    """
    from bldml.export.command import export_checkpoint

    export_checkpoint(ckpt_path, format, output, weights, photographs, version=__version__)


def ensemble(sweep: Path, output: Path | None = None) -> None:
    """Make one classifier of the runs of an experiment; its logit is the mean of their calibrated logits.

    Temperature, threshold and bands are chosen on the out-of-fold predictions. The result is a run folder for test,
    predict, explain, export, report and compare.

    Args:
        sweep: Folder of an experiment, or one of its configurations, such as sweeps/backbones/resnet50.
        output: Run folder to make; null for ensembles/<configuration> in the folder of the experiment.
    """
    from bldml.sweep.ensemble.command import make_ensemble

    make_ensemble(sweep, output)


def survey(
    ckpt_path: Path,
    photographs: Path,
    output: Path = Path("survey"),
    group: str | None = None,
    positions: Literal["rounded", "exact", "none"] = "rounded",
    sheet: int = 200,
    shard: str | None = None,
    unreadable: Literal["exclude", "error"] = "exclude",
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Classify a large folder of photographs into a list, a map and a sheet for review.

    Args:
        ckpt_path: Checkpoint, or a run folder for its best one (also: --ckpt_path).
        photographs: Folder with photographs, including its subfolders, or one photograph.
        output: Output folder (new or empty, or of the same survey, to resume it).
        group: What makes a unit, such as a tree: folder, a distance of positions such as gps:15m, or a CSV with the
            columns path and group; null for no units.
        positions: Write positions rounded to 0.01 degrees (about 1 km), exact, or none. They are private.
        sheet: Number of photographs on the sheet for review; 0 for no sheet.
        shard: Part of the work for one of several processes, such as 3/16; null for all of it.
        unreadable: Leave out photographs that cannot be read, with the reason in the table (exclude), or stop (error).
        device: Device to compute on; auto uses a GPU if there is one.
    """
    from bldml.survey.command import Wanted, survey_photographs
    from bldml.survey.progress import WorkShard
    from bldml.survey.units import Grouping

    wanted = Wanted(None if group is None else Grouping.parse(group), positions, sheet)
    survey_photographs(
        ckpt_path, photographs, output, wanted, WorkShard.parse(shard), device,
        unreadable=unreadable, version=__version__,
    )  # fmt: skip


def review(inputs: list[Path], output: Path | None = None, test: float | None = None, sheet: int | None = None) -> None:
    """Turn a saved review into a manifest for the next training, or make the page for a review of labels.

    `review CONFIRMED.csv RUN PHOTOGRAPHS` takes what the page triage.html of a survey of PHOTOGRAPHS saved, and adds it
    to the photographs of RUN. `review sweeps/NAME/CONFIGURATION` makes labels.html: photographs whose labels contradict
    the out-of-fold predictions, to be looked at again. `review CONFIRMED.csv sweeps/NAME/CONFIGURATION` takes what that
    page saved, and writes the photographs of the experiment with the corrected labels, in the same folds.

    Args:
        inputs: For labels, sweeps/NAME/CONFIGURATION makes the page, and CONFIRMED.csv sweeps/NAME/CONFIGURATION the
            manifest. Of a survey, CONFIRMED.csv RUN PHOTOGRAPHS makes the manifest.
        output: Output folder; null for review, and for review/CONFIGURATION in the folder of an experiment.
        test: Fraction of a survey's reviewed photographs that is kept out of the training, for testing; units stay
            together. null for 0.2.
        sheet: Most photographs on the page for labels; null for 200.
    """
    from bldml.survey.review import review_survey

    if len(inputs) == 3:
        confirmed, run, photographs = inputs
        review_survey(confirmed, run, photographs, output or Path("review"), 0.2 if test is None else test)
        return
    from bldml.sweep.review.command import correct_labels, make_label_sheet

    if len(inputs) > 3:
        message = f"review takes at most three paths: CONFIRMED.csv RUN PHOTOGRAPHS; found {len(inputs)}."
        raise UsageError(message, "review-inputs-too-many", found=len(inputs))
    if len(inputs) == 2 and sheet is not None:
        message = "--sheet is for the page of labels, not for what was saved from it."
        raise UsageError(message, "review-sheet-not-made", found=sheet)
    if test is not None:
        message = "--test is for the review of a survey. The photographs of an experiment keep their folds."
        raise UsageError(message, "review-test-of-experiment", found=test)
    try:
        if len(inputs) == 1:
            make_label_sheet(inputs[0], output, 200 if sheet is None else sheet, version=__version__)
        else:
            confirmed, source = inputs
            correct_labels(confirmed, source, output)
    except UsageError as error:
        if error.code == "experiment-missing":
            error.add_note("The review of a survey is: python -m bldml review CONFIRMED.csv RUN PHOTOGRAPHS")
        raise


def split(
    photographs: Path,
    manifest: Path | None = None,
    output: Path = Path("splits.csv"),
    group: str = "burst",
    test: float = 0.2,
    val: float = 0.2,
    folds: int | None = None,
    seed: int = 0,
    gap_seconds: float = 10.0,
    class_aliases: dict[str, str] | None = None,
    fresh: bool = False,
) -> None:
    r"""Split photographs into train, val and test; groups, bursts and duplicates are never divided.

    Args:
        photographs: Folder with class folders, or with split folders, whose assignment is ignored; or the folder that
            the manifest's paths are relative to.
        manifest: CSV with the columns path and label, and optionally group; a column split is ignored.
        output: Manifest to write; existing assignments in this file are kept.
        group: burst, folder (below the class folder; folders with the same name form one group; folder:1 uses only
            the first level), name:EXPRESSION (what the first group of a regular expression finds in the file name, such
            as 'name:^(IMG_\d+)'), none, or a CSV with the columns path and group. Bursts are kept together for all but
            none.
        test: Fraction of the test split.
        val: Fraction of the validation split.
        folds: Also create this number of cross-validation folds from the non-test photographs; null keeps the folds
            of an existing manifest. Select a fold as val with fit --data.fold.
        seed: Random seed for ties.
        gap_seconds: Maximum gap (s) between photographs of one burst; 0 turns burst detection off.
        class_aliases: Class name for a folder's name, where they differ.
        fresh: Ignore existing assignments and start over.
    """
    from bldml.dataset.splitting.command import split_photographs
    from bldml.dataset.splitting.splits import SplitRequest

    text = split_photographs(
        photographs, output, SplitRequest(val, test, folds, seed),
        group=group, gap_seconds=gap_seconds, class_aliases=class_aliases, fresh=fresh, manifest=manifest,
    )  # fmt: skip
    say(text)


def audit(
    photographs: Path,
    manifest: Path | None = None,
    output: Path = Path("audit"),
    positive_class: str | None = None,
    class_aliases: dict[str, str] | None = None,
    workers: int | Literal["auto"] = "auto",
    power: Literal["on", "off"] = "on",
    look_alikes: Literal["auto", "keypoints", "off"] = "auto",
) -> None:
    """Check photographs for damage, duplicates, leaks between splits, class imbalance and shortcuts.

    Exit code: 0 if the audit found no error, 1 if it found errors, 2 if it could not be done, for example after a
    mistake in the command or a disk error.

    Args:
        photographs: Folder with split folders or class folders; the manifest's paths are relative to it.
        manifest: CSV file with the splits, as written by split.
        output: Folder outside the photographs for audit.html and its tables; an interrupted audit is resumed.
        positive_class: Test shortcuts for this class against all others; with two classes it may be left out.
        class_aliases: Class name by folder name, where they differ.
        workers: Number of reading processes; auto for one per CPU.
        power: Plant changed copies in memory and report how many are found; off saves some seconds.
        look_alikes: Also search one leaf or scene turned, cropped or from another angle: by keypoints, or off; auto
            searches among at most 20,000 photographs.
    """
    from bldml.audit.command import audit_photographs

    try:
        audited, text = audit_photographs(
            photographs, output, version=__version__, manifest=manifest, positive_class=positive_class,
            class_aliases=class_aliases, workers=None if workers == "auto" else workers,
            power=power == "on", look_alikes=look_alikes,
        )  # fmt: skip
    except (BldmlError, OSError) as error:
        error.exit_code = 2  # type: ignore[union-attr]  # 1 means errors in the photographs
        if isinstance(error, OSError):
            error.filename = error.filename or output
        raise
    say(text)
    if count := audited.counts()["error"]:
        sys.stdout.flush()
        # A non-zero exit code stops a job script here.
        page = output / "audit.html"
        message = f"The audit found {counted(count, 'error')}. See {page}."
        raise DatasetError(message, "audit-errors-found", found=count, path=page)


def sweep(
    experiment: Path,
    output: Path | None = None,
    jobs: int | None = None,
    slurm: Path | None = None,
    status: bool = False,
    collect: bool = False,
    open_test: bool = False,
    trust_config: bool = False,
    model_class: type | None = None,
) -> None:
    """Train all configurations, seeds and folds of an experiment; the same command resumes and extends it.

    Exit code: 0 if all runs are finished or, which is said, in Slurm's queue; 1 if runs failed or somebody else
    interrupted them. These are named, and the others are done all the same.

    Args:
        experiment: YAML file of the experiment; see docs/howto/sweep.md.
        output: Folder of the sweep, with a run folder for each run; null for sweeps/<name of the file>.
        jobs: Number of runs at a time; null for one here, and for no limit in Slurm. Of a search: number of trials at a
            time, and in Slurm of workers; null for one, and for up to four.
        slurm: Submit the missing runs as a job array; each task runs this sbatch script of a single fit, such as
            scripts/slurm/fit.sbatch.
        status: Only show the state of each run, also in Slurm's queue.
        collect: Only write sweep.html and its tables, from the runs that are finished; done after all runs anyway.
        open_test: When all runs are finished, test the configuration chosen beforehand, or else the best, on the sealed
            test set; for one configuration only. With slurm, the trainings for that are submitted as jobs.
        trust_config: The configurations may name classes that bldml does not know. Such a configuration can run any
            program with your rights, so write it each time.
        model_class: A classifier class of your own; set by `bldml.cli.main`.
    """
    from bldml.sweep.command import collect_runs, open_sealed, run_sweep, show_status, submit_sweep
    from bldml.sweep.plan import Own

    own = Own(trust_config, model_class)
    if status:
        show_status(experiment, output)
    elif collect:
        collect_runs(experiment, output)
    elif open_test:
        open_sealed(experiment, output, jobs, slurm, own)
    elif slurm is not None:
        submit_sweep(experiment, output, slurm, jobs, own)
    else:
        run_sweep(experiment, output, 1 if jobs is None else jobs, own)


COMMANDS: dict[str, Callable[..., None]] = {
    function.__name__: function
    for function in (compare, report, demo, prefetch, explain, export, survey, review, split, audit, sweep, ensemble)
}
