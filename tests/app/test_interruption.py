"""A run that is stopped and goes on, by the real command line and real signals; for Slurm see tests/slurm/."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import yaml

from bldml.run.folder import RunFolder
from bldml.run.ledger import read_ledger
from bldml.training.recording import measured
from bldml.training.resume import holding
from bldml.training.resume.signals import INTERRUPTING
from bldml.training.resume.state import read_progress
from bldml.training.resume.stopping import STARTED
from tests import signalling
from tests.clocks import jumping, without_battery
from tests.prepared import Prepared
from tests.sameness import assert_same, checkpoint, curves
from tests.support import ALONE, REPOSITORY, THREE_LAYERS, Bldml

TERM, INT, USR1, HUP = signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP
# Five training batches and two of validation, in each of three epochs; everything moves that could be forgotten.
OPTIONS = (
    *THREE_LAYERS,
    "--trust_config",
    "--trainer.callbacks+=tests.signalling.SendSignals",
    "--data.val_fraction=0.3",
    "--data.test_fraction=0.1",
    "--trainer.max_epochs=3",
    "--unfreezing={start_epoch: 1, stages: 2, every_n_epochs: 1}",
    "--model.freeze_batchnorm=false",
    "--model.lr=1e-2",
    "--model.backbone_lr_factor=1.0",
    "--plateau.patience=0",
    "--early_stopping.patience=100",
)
Fit = Callable[..., Path]


@pytest.fixture(autouse=True)
def plan() -> Iterator[None]:
    """Nothing planned; and no handler left behind."""
    handlers = {signum: signal.getsignal(signum) for signum in INTERRUPTING}
    signalling.PLAN.clear()
    signalling.REACHED.clear()
    yield
    assert {signum: signal.getsignal(signum) for signum in INTERRUPTING} == handlers, "a handler was left behind"


@pytest.fixture(scope="module")
def steady(leaves: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing interrupts."""
    from bldml.cli import main

    folder, before = tmp_path_factory.mktemp("steady"), Path.cwd()
    os.chdir(folder)
    try:
        assert main(["fit", *OPTIONS, f"--data.root={leaves}", "--run_name=steady"]) == 0
    finally:
        os.chdir(before)
    return folder / "lightning_logs" / "steady"


def stop_and_go_on(bldml: Bldml, leaves: Path, moments: list[str], *options: str, kind: signal.Signals = TERM) -> Path:
    """A run that is stopped at each of these moments, one after the other, and then runs to its end."""
    run = Path("lightning_logs/hurt")
    times = []
    for number, moment in enumerate([*moments, ""]):
        signalling.PLAN |= {moment: kind} if moment else {}
        first = ("--data.root", leaves, "--run_name=hurt", *OPTIONS, *options)
        outcome = bldml("fit", *(first if number == 0 else ("--trust_config", "--resume", run)))
        assert not signalling.PLAN, f"{moment} was not reached"
        assert outcome.code == (128 + kind if moment else 0), outcome.err
        assert ("Resuming" in outcome.err) == (number > 0)
        assert "Traceback" not in outcome.err
        times.append(measured(RunFolder(run)) or 0.0)
    # Each process adds its time; one that finds all epochs done has none.
    assert times == sorted(times)
    assert len(set(times)) >= len(times) - 1
    return run


def interrupt(bldml: Bldml, leaves: Path, moment: str, *options: str) -> RunFolder:
    """A run that SIGTERM has stopped at this moment."""
    signalling.PLAN |= {moment: TERM}
    assert bldml("fit", *OPTIONS, "--data.root", leaves, "--run_name=hurt", *options).code == 143
    return RunFolder(Path("lightning_logs/hurt"))


MOMENTS = {
    "first and last batches": ["train 0 0", "train 0 4", "train 2 4"],
    "middle": ["train 0 2", "train 1 1", "train 1 2"],
    "validation": ["val 0 0", "val 1 1", "val 2 0"],
    "between epochs": ["epoch 1", "epoch end 1", "epoch end 2"],
    "during the checkpoint": ["save 1", "save 2"],
    "before the first batch": ["start", "epoch 0"],
}


@pytest.mark.parametrize("moments", MOMENTS.values(), ids=list(MOMENTS))
def test_every_moment(moments: list[str], steady: Path, leaves: Path, bldml: Bldml) -> None:
    first_saves_nothing = moments[0] == "start"
    if first_saves_nothing:
        signalling.PLAN["start"] = TERM
        assert bldml("fit", *OPTIONS, "--data.root", leaves, "--run_name=hurt").code == 143
        assert not list(Path("lightning_logs/hurt/checkpoints").glob("*"))
        assert bldml("fit", "--trust_config", "--resume=lightning_logs/hurt").code == 0
        assert_same(Path("lightning_logs/hurt"), steady)
    else:
        assert_same(stop_and_go_on(bldml, leaves, moments), steady)


def test_after_every_second_batch(steady: Path, leaves: Path, bldml: Bldml) -> None:
    """Interrupted so often that each start resumes from another kind of position."""
    moments = [f"train {epoch} {batch}" for epoch in range(3) for batch in (1, 3)]
    assert_same(stop_and_go_on(bldml, leaves, moments), steady)


def test_loader_processes_do_not_react(steady: Path, leaves: Path, bldml: Bldml, tmp_path: Path) -> None:
    """All processes get the signal, as from Slurm; with stock parts the workers would save their own old state."""
    command = [sys.executable, "-m", "tests.three_layers", "fit", *OPTIONS]
    options = ["--data.num_workers=2", f"--data.root={leaves}"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    run = tmp_path / "lightning_logs" / "hurt"
    for kind in (USR1, TERM):
        existing = ["--resume", str(run)] if run.exists() else ["--run_name=hurt"]
        before = (run / "history.csv").stat().st_mtime_ns if (run / "history.csv").exists() else 0
        process = Prepared(
            [*command[:4], "--trust_config", *existing] if run.exists() else [*command, *options, *existing],
            cwd=tmp_path, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        while process.poll() is None and (
            not (run / "history.csv").exists() or (run / "history.csv").stat().st_mtime_ns == before
        ):
            time.sleep(0.05)
        os.killpg(process.pid, kind)
        _, err = process.communicate(timeout=300)
        assert process.returncode in (128 + kind, 0), err
        assert "Traceback" not in err
        assert "DataLoader worker" not in err
    assert bldml("fit", "--trust_config", "--resume", run).code == 0
    assert_same(run, steady)


@pytest.mark.parametrize(
    ("options", "moments"),
    [
        (["--trainer.accumulate_grad_batches=2"], ["train 0 0", "train 1 1"]),
        (["--trainer.val_check_interval=2"], ["train 0 1", "val 1 0", "train 2 2"]),
        (["--trainer.check_val_every_n_epoch=2"], ["train 0 4", "val 1 0", "epoch 2"]),
        (["--trainer.accumulate_grad_batches=2", "--trainer.val_check_interval=3"], ["val 0 0", "val 1 0"]),
        (["--trainer.min_epochs=3", "--trainer.max_epochs=5", "--early_stopping.patience=1"], ["train 2 1"]),
        (["--data.num_workers=2", "--data.batch_size=5"], ["train 0 0", "val 1 1", "train 2 6"]),
        # Its features so far are in the checkpoint.
        (["--model.head=logistic"], ["train 0 3", "train 0 4", "val 0 1"]),
    ],
    ids=[
        *("gradients", "validation within", "rare validation", "gradients over a validation", "late stop", "workers"),
        "features for the head",
    ],
)
def test_other_settings(options: list[str], moments: list[str], leaves: Path, bldml: Bldml) -> None:
    reference = bldml("fit", *OPTIONS, "--data.root", leaves, "--run_name=steady", *options)
    assert reference.code == 0, reference.err
    assert_same(stop_and_go_on(bldml, leaves, moments, *options), Path("lightning_logs/steady"))


def test_an_early_stop_is_not_forgotten(leaves: Path, bldml: Bldml) -> None:
    """Interrupted in the evaluation that follows, it must not train another epoch."""
    options = ("--early_stopping.patience=1", "--trainer.max_epochs=30")
    assert bldml("fit", *OPTIONS, "--data.root", leaves, "--run_name=steady", *options).code == 0
    assert len(Path("lightning_logs/steady/history.csv").read_text().splitlines()) < 30
    assert_same(stop_and_go_on(bldml, leaves, ["train end"], *options), Path("lightning_logs/steady"))
    assert bldml("fit", "--trust_config", "--resume=lightning_logs/hurt").code == 0
    assert_same(Path("lightning_logs/hurt"), Path("lightning_logs/steady"))


@pytest.mark.parametrize("kind", [USR1, TERM, INT, HUP])
def test_outside_slurm_every_signal_saves_and_ends_the_process(
    kind: signal.Signals, leaves: Path, bldml: Bldml
) -> None:
    signalling.PLAN |= {"train 1 1": kind}
    outcome = bldml("fit", *OPTIONS, "--data.root", leaves, "--run_name=r")
    assert outcome.code == 128 + kind
    progress = read_progress(Path("lightning_logs/r/checkpoints/last.ckpt"))
    assert (progress.epoch, progress.step) == (1, 7)
    assert f"fit --resume {Path('lightning_logs/r').absolute()}" in outcome.out
    assert "Saved" in outcome.err


def test_a_second_signal_during_the_save_changes_nothing(steady: Path, leaves: Path, bldml: Bldml) -> None:
    signalling.PLAN |= {"train 0 1": USR1, "save 0": TERM}
    outcome = bldml("fit", *OPTIONS, "--data.root", leaves, "--run_name=hurt")
    assert not signalling.PLAN
    assert outcome.code == 128 + USR1
    assert bldml("fit", "--trust_config", "--resume=lightning_logs/hurt").code == 0
    assert_same(Path("lightning_logs/hurt"), steady)


def test_an_ignored_hangup_stays_ignored(leaves: Path, tmp_path: Path) -> None:
    """As under nohup."""
    options = [f"--data.root={leaves}", "--run_name=r", "--trainer.max_epochs=3", "--early_stopping.patience=100"]
    process = subprocess.Popen(
        ["nohup", sys.executable, "-m", "tests.three_layers", "fit", *THREE_LAYERS, *options], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while process.poll() is None and not (tmp_path / "lightning_logs/r/history.csv").exists():
        time.sleep(0.05)
    process.send_signal(HUP)
    assert process.wait(300) == 0


def spoil(path: Path, how: str) -> None:
    """Leave half of a checkpoint, or one wrong bit inside a tensor."""
    content = bytearray(path.read_bytes())
    if how == "half of it":
        path.write_bytes(content[: len(content) // 2])
        return
    largest = max(checkpoint(path)["state_dict"].values(), key=torch.numel)
    content[content.index(bytes(largest.untyped_storage())) + 100] ^= 1  # stored as it lies in memory: channels last
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["half of it", "one wrong bit"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(how: str, steady: Path, leaves: Path, bldml: Bldml) -> None:
    run = interrupt(bldml, leaves, "train 2 1")
    spoil(run.last_checkpoint, how)
    outcome = bldml("fit", "--trust_config", "--resume", run.path)
    assert outcome.code == 0, outcome.err
    assert "last.ckpt is refused: it is damaged" in outcome.err
    assert "Resuming from the previous one, previous.ckpt" in outcome.err
    assert "epoch 2, step 10" in outcome.err
    assert_same(run.path, steady)


def test_with_both_checkpoints_damaged_nothing_is_begun_anew(leaves: Path, bldml: Bldml) -> None:
    run = interrupt(bldml, leaves, "train 2 1")
    for path in (run.last_checkpoint, run.previous_checkpoint):
        path.write_bytes(b"PK")
    before = sorted(path.name for path in run.checkpoints.iterdir())
    outcome = bldml("fit", "--trust_config", "--resume", run.path)
    assert outcome.code == 1
    assert "This run cannot be resumed" in outcome.err
    assert sorted(path.name for path in run.checkpoints.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model.lr=0.5"], ["model.lr: 0.01 when the run started, 0.5 now"]),
        (["--trainer.max_epochs=9", "--data.batch_size=4"], ["trainer.max_epochs: 3", "data.batch_size: 8"]),
        (["--unfreezing={start_epoch: 0, stages: 1}"], ["unfreezing.start_epoch: 1", "unfreezing.stages: 2"]),
    ],
)
def test_another_configuration_is_refused(options: list[str], words: list[str], steady: Path, bldml: Bldml) -> None:
    shutil.copytree(steady, "lightning_logs/r")
    before = Path("lightning_logs/r/config.yaml").read_bytes()
    outcome = bldml("fit", "--trust_config", "--resume=lightning_logs/r", *options)
    assert outcome.code == 2
    for word in words:
        assert word in outcome.err
    assert "fit --resume lightning_logs/r" in outcome.err
    assert Path("lightning_logs/r/config.yaml").read_bytes() == before


def test_what_changes_no_result_may_differ(steady: Path, leaves: Path, bldml: Bldml) -> None:
    interrupt(bldml, leaves, "train 1 1")
    options = ("--data.num_workers=1", "--checkpoint_minutes=0.001", "--run_name=other")
    assert bldml("fit", "--trust_config", "--resume=lightning_logs/hurt", *options).code == 0
    assert not Path("lightning_logs/other").exists()
    assert_same(Path("lightning_logs/hurt"), steady)


def test_a_run_that_was_moved_goes_on_in_its_new_place(leaves: Path, bldml: Bldml) -> None:
    """ModelCheckpoint by itself would forget the best score, and keep a worse checkpoint as the best."""
    assert bldml("fit", *OPTIONS, "--data.root", leaves, "--run_name=steady", "--monitor=val_auroc").code == 0
    interrupt(bldml, leaves, "train 2 1", "--monitor=val_auroc")
    Path("elsewhere").mkdir()
    Path("lightning_logs/hurt").rename("elsewhere/hurt")
    assert bldml("fit", "--trust_config", "--resume=elsewhere/hurt").code == 0
    assert_same(Path("elsewhere/hurt"), Path("lightning_logs/steady"))


def test_photographs_that_were_added_are_left_aside_and_one_that_changed_is_named(
    steady: Path, leaves: Path, bldml: Bldml
) -> None:
    root = Path("leaves")
    shutil.copytree(leaves, root)
    interrupt(bldml, root, "train 1 1")
    shutil.copytree("lightning_logs/hurt", "lightning_logs/changed")
    shutil.copy(root / "BLD/leaf_0001.jpg", root / "BLD/added.jpg")
    outcome = bldml("fit", "--trust_config", "--resume=lightning_logs/hurt")
    assert outcome.code == 0, outcome.err
    assert Path("lightning_logs/hurt/history.csv").read_bytes() == (steady / "history.csv").read_bytes()
    name = next(
        line.split(",")[0]
        for line in Path("lightning_logs/changed/splits.csv").read_text().splitlines()
        if ",train," in line
    )
    other = next(path for path in (root / "BLD").iterdir() if path.read_bytes() != (root / name).read_bytes())
    shutil.copy(other, root / name)
    outcome = bldml("fit", "--trust_config", "--resume=lightning_logs/changed")
    assert outcome.code == 1
    assert "The photographs of the train split changed" in outcome.err
    (root / name).unlink()
    outcome = bldml("fit", "--trust_config", "--resume=lightning_logs/changed")
    assert outcome.code == 1
    assert name in outcome.err


def test_a_recipe_that_begins_anew_at_each_unfreezing_goes_on_exactly(leaves: Path, bldml: Bldml) -> None:
    recipe = ("--unfreezing.blocks=3", "--unfreezing.reset_optimizer=true", "--model.frozen_mode=train")
    stop_and_go_on(bldml, leaves, ["save 0", "epoch 1", "train 1 2", "epoch 2"], *recipe)
    assert bldml("fit", *OPTIONS, "--data.root", leaves, *recipe, "--run_name=steady").code == 0
    assert_same(Path("lightning_logs/hurt"), Path("lightning_logs/steady"))


def test_a_run_of_a_version_that_had_fewer_settings_goes_on(steady: Path, leaves: Path, bldml: Bldml) -> None:
    interrupt(bldml, leaves, "train 1 1")
    config = Path("lightning_logs/hurt/config.yaml")
    content = yaml.safe_load(config.read_text())
    del content["model"]["head"], content["model"]["frozen_mode"], content["unfreezing"]["blocks"]
    for key in ("translate", "scale", "grayscale", "fill", "surroundings", "crop_aspect_relative"):
        del content["data"]["augmentation"][key]
    config.write_text(yaml.safe_dump(content))
    outcome = bldml("fit", "--trust_config", "--resume=lightning_logs/hurt", "--model.frozen_mode=train")
    assert outcome.code == 2
    assert "model.frozen_mode: eval when the run started, train now" in outcome.err
    assert bldml("fit", "--trust_config", "--resume=lightning_logs/hurt").code == 0
    assert_same(Path("lightning_logs/hurt"), steady)


def test_a_run_that_is_resumed_under_other_conditions(leaves: Path, bldml: Bldml) -> None:
    """As after an update of the environment while the job waited in the queue."""
    run = RunFolder(Path("lightning_logs/hurt"))
    signalling.PLAN |= {"train 1 1": TERM}
    assert bldml("fit", *OPTIONS, "--data.root", leaves, "--run_name=hurt").code == 143
    record = json.loads(run.environment.read_text())
    record["versions"]["torch"], record["cpu_threads"] = "2.9.1", 999
    run.environment.write_text(json.dumps(record))
    signalling.PLAN |= {"train 2 1": TERM}
    outcome = bldml("fit", "--trust_config", "--resume", run.path)
    assert outcome.code == 143
    assert f"resumed under other conditions: torch 2.9.1 → {version('torch')}; CPU threads 999 → " in outcome.err
    outcome = bldml("fit", "--trust_config", "--resume", run.path)
    assert (outcome.code, "other conditions" in outcome.err) == (0, False)
    record = json.loads(run.environment.read_text())
    assert record["versions"]["torch"] == "2.9.1"
    for note in record["continued"]:
        assert note["versions"]["torch"] == version("torch")
        assert {"git_commit", "code", "host", "gpu", "cpu", "precision", "cpu_threads", "processes"} <= note.keys()
    assert bldml("report", run.path).code == 0
    page = (run.path / "report.html").read_text()
    assert f"resumed under other conditions: from step {record['continued'][0]['step']}, torch 2.9.1 → " in page


@pytest.mark.parametrize(
    "more", [(), ("--trainer.plugins+=RequeueEnvironment", "--trainer.plugins.auto_requeue=false")]
)
def test_a_requeued_job_whose_previous_process_lives(
    more: tuple[str, ...], steady: Path, leaves: Path, bldml: Bldml, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As on a node that Slurm has lost; a program in scontrol's place does what Slurm does to a requeued job."""
    run = RunFolder(Path("lightning_logs/hurt"))
    shutil.copytree(steady, run.path)
    run.environment.write_text(json.dumps({**json.loads(run.environment.read_text()), "slurm_job": "atlas:77"}))
    hold = "import sys; from pathlib import Path; from bldml.run.folder import *; "
    hold += "held = lock_run(RunFolder(Path(sys.argv[1])), holder=Holder.here('atlas:77')); print(flush=True); input()"
    previous = subprocess.Popen(
        [sys.executable, "-c", hold, str(run.path)], env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert previous.stdout is not None
    previous.stdout.readline()
    scontrol = tmp_path / "programs" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f"#!/bin/sh\nif [ $1 = requeue ]; then kill -TERM {os.getpid()}; fi\necho JobState=RUNNING\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", str(scontrol.parent), prepend=":")
    monkeypatch.setattr(holding, "PATIENCE_S", 1.0)
    in_job(monkeypatch, SLURM_RESTART_COUNT="1")
    outcome = bldml("fit", *OPTIONS, "--data.root", leaves, "--run_name=hurt", *more)
    previous.communicate(b"\n")
    assert outcome.code == 138
    assert f"Waiting for process {previous.pid} of job 77 on {socket.gethostname()}, since" in outcome.err
    assert ("Job 77 is requeued." if not more else "Job 77 is not requeued: auto_requeue is off.") in outcome.err


def test_a_drawn_seed_is_kept(leaves: Path, bldml: Bldml) -> None:
    signalling.PLAN |= {"train 1 1": TERM}
    drawn = ("--seed_everything=true", "--run_name=hurt")
    assert bldml("fit", *OPTIONS, "--data.root", leaves, *drawn).code == 143
    assert bldml("fit", "--trust_config", "--resume=lightning_logs/hurt").code == 0
    seed = json.loads(Path("lightning_logs/hurt/environment.json").read_text())["seed"]
    repeated = ("--run_name=steady", f"--seed_everything={seed}")
    assert bldml("fit", *OPTIONS, "--data.root", leaves, *repeated).code == 0
    assert_same(Path("lightning_logs/hurt"), Path("lightning_logs/steady"))


def test_a_run_is_not_trained_by_two_processes(steady: Path, leaves: Path, bldml: Bldml) -> None:
    """The second is refused as long as the first lives."""
    options = [f"--data.root={leaves}", "--run_name=r", "--trainer.max_epochs=1000", "--early_stopping.patience=1000"]
    process = Prepared(
        [sys.executable, "-m", "tests.three_layers", "fit", *THREE_LAYERS, *options],
        stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    run = Path("lightning_logs/r")
    while process.poll() is None and not (run / "checkpoints/last.ckpt").exists():
        time.sleep(0.05)
    before = (run / "environment.json").read_bytes()
    outcome = bldml("fit", "--trust_config", "--resume", run)
    assert outcome.code == 1
    assert f"Another process is training in {run}: process {process.pid} on {socket.gethostname()}, " in outcome.err
    assert outcome.fields["found"]["since"][:2] == "20"
    assert (run / "environment.json").read_bytes() == before
    assert process.poll() is None
    process.kill()
    process.wait()
    signalling.PLAN.clear()
    assert read_progress(run / "checkpoints/last.ckpt").epoch > 0


def test_a_foreign_checkpoint_in_the_folder_is_not_touched(
    steady: Path, leaves: Path, bldml: Bldml, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning, inside a Slurm job, would load hpc_ckpt_1.ckpt into any fit and any test that starts there."""
    shutil.copy(steady / "checkpoints" / "last.ckpt", "hpc_ckpt_1.ckpt")
    for name, value in {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "bldml", "SLURM_PROCID": "0"}.items():
        monkeypatch.setenv(name, value)
    outcome = bldml("fit", *OPTIONS, "--data.root", leaves, "--run_name=r", "--trainer.max_epochs=1")
    assert outcome.code == 0, outcome.err
    assert read_progress(Path("lightning_logs/r/checkpoints/last.ckpt")).step == 5
    tested = bldml("test", "--trust_config", "--ckpt_path=lightning_logs/r/checkpoints/best.ckpt", "--output=out")
    assert tested.code == 0, tested.err
    own = Path("lightning_logs/r/evaluations/test/predictions.csv").read_bytes()
    assert Path("out/predictions.csv").read_bytes() == own


def test_what_was_logged_behind_the_checkpoint_is_not_doubled(steady: Path, leaves: Path, bldml: Bldml) -> None:
    """As after a SIGKILL: history.csv and TensorBoard hold an epoch that the checkpoint knows nothing of."""
    run = interrupt(bldml, leaves, "epoch end 0")
    old = run.last_checkpoint.read_bytes()
    signalling.PLAN |= {"train 2 0": TERM}
    assert bldml("fit", "--trust_config", "--resume", run.path).code == 143
    assert len(run.history.read_text().splitlines()) == 3
    run.last_checkpoint.write_bytes(old)
    run.previous_checkpoint.unlink()
    assert bldml("fit", "--trust_config", "--resume", run.path).code == 0
    assert_same(run.path, steady)
    steps = [step for step, _ in curves(run.path)["loss/val"]]
    assert steps == [4, 9, 14]


def test_checkpoint_minutes(leaves: Path, bldml: Bldml) -> None:
    """With none to wait, a checkpoint is written after each batch."""
    signalling.PLAN.clear()
    assert bldml("fit", *OPTIONS, "--data.root", leaves, "--run_name=r", "--checkpoint_minutes=1e-9").code == 0
    within = [moment for moment in signalling.REACHED if moment == "save 1"]
    # Four batches before the last; then perhaps the best, and the epoch itself at the start of the next.
    assert len(within) >= 5
    signalling.REACHED.clear()
    assert bldml("fit", *OPTIONS, "--data.root", leaves, "--run_name=s").code == 0
    assert len([moment for moment in signalling.REACHED if moment == "save 1"]) <= 2


def test_checkpoint_that_cannot_be_written(leaves: Path, bldml: Bldml) -> None:
    """A folder stands where the file is to be; the run ends with a message and the old checkpoint."""
    run = interrupt(bldml, leaves, "train 1 1")
    before = run.last_checkpoint.read_bytes()
    (run.checkpoints / "next.ckpt").mkdir()
    (run.checkpoints / "next.ckpt" / "x").touch()
    outcome = bldml("fit", "--trust_config", "--resume", run.path)
    assert outcome.code == 1
    assert "Cannot write the checkpoint" in outcome.err
    assert "Traceback" not in outcome.err
    assert run.last_checkpoint.read_bytes() == before
    assert not list(run.checkpoints.glob(".*"))


@pytest.mark.parametrize(
    ("option", "code"),
    [
        ("--resume=lightning_logs/r/checkpoints/last.ckpt", "resume-no-run"),
        ("--resume=lightning_logs", "resume-no-run"),
        ("--checkpoint_minutes=0", "option-wrong"),
        ("--checkpoint_minutes=-3", "option-wrong"),
    ],
)
def test_resume_of_what_is_no_run(option: str, code: str, steady: Path, bldml: Bldml) -> None:
    shutil.copytree(steady, "lightning_logs/r")
    outcome = bldml("fit", "--trust_config", option)
    assert outcome.mistake == code
    assert ("Its run is" in outcome.err) == ("last.ckpt" in option)
    assert "Traceback" not in outcome.err


def test_a_trial_run_can_be_stopped_too(leaves: Path, bldml: Bldml) -> None:
    signalling.PLAN |= {"train 0 0": INT}
    outcome = bldml("fit", *OPTIONS, "--data.root", leaves, "--trainer.fast_dev_run=4")
    assert outcome.code == 130
    assert not Path("lightning_logs").exists()


def test_checkpoint_of_a_stopped_run_can_be_tested(leaves: Path, bldml: Bldml) -> None:
    last = interrupt(bldml, leaves, "train 1 1").last_checkpoint
    assert bldml("test", "--trust_config", "--ckpt_path", last, "--trainer.accelerator=cpu").code == 0
    assert checkpoint(last)["epoch"] == 1
    assert torch.load(last, weights_only=True)["bldml_resume"]["position"] == "batch"


def in_job(monkeypatch: pytest.MonkeyPatch, **more: str) -> None:
    """Let this process believe that it runs in a batch job, but not below srun."""
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    for name, value in {"SLURM_JOB_ID": "77", "SLURM_JOB_NAME": "bldml", "SLURM_CLUSTER_NAME": "atlas", **more}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("name", [[], ["--run_name=mine"]])
def test_the_same_job_goes_on_and_another_does_not(
    name: list[str], leaves: Path, bldml: Bldml, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Below a home folder written as a tilde, which no shell has looked at."""
    monkeypatch.setenv("HOME", str(tmp_path))
    in_job(monkeypatch)
    command = ("fit", *OPTIONS, "--data.root", leaves, "--trainer.default_root_dir=~/runs", *name)
    signalling.PLAN |= {"train 1 1": INT}
    assert bldml(*command).code == 130
    again = bldml(*command)
    assert again.code == 0, again.err
    assert "from epoch 1, step 7" in again.err
    runs = tmp_path / "runs" / "lightning_logs"
    assert [path.name for path in runs.iterdir()] == ["mine" if name else "three_layers_77"]
    in_job(monkeypatch, SLURM_CLUSTER_NAME="ceres")  # where numbers start at 1 too
    other = bldml(*command, "--trainer.max_epochs=1")
    assert other.code == (1 if name else 0)
    assert "Resuming" not in other.err


def test_another_run_of_the_same_job_is_another_run(
    leaves: Path, bldml: Bldml, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_job(monkeypatch)
    for name in ("lr-1", "lr"):
        command = ("--data.root", leaves, "--trainer.max_epochs=1", "--test_after_fit=false", f"--run_name={name}")
        outcome = bldml("fit", *OPTIONS, *command)
        assert outcome.code == 0
        assert "Resuming" not in outcome.err
    assert len(list(Path("lightning_logs").iterdir())) == 2
    refused = bldml("fit", *OPTIONS, "--data.root", leaves, "--run_name=/absolute")
    assert refused.mistake == "name-refused"


def test_more_tasks_than_devices(leaves: Path, bldml: Bldml, monkeypatch: pytest.MonkeyPatch) -> None:
    """The site's own tip says --ntasks=16. In whatever job: each task would train a run of its own."""
    step = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NTASKS": "16"}
    step |= {"SLURM_STEP_NUM_TASKS": "16", "SLURM_STEP_TASKS_PER_NODE": "16"}
    for name, more in (("bldml", ()), ("interactive", ("--config", REPOSITORY / "configs" / "slurm.yaml"))):
        in_job(monkeypatch, **step, SLURM_JOB_NAME=name)
        outcome = bldml("fit", *OPTIONS, "--data.root", leaves, *more)
        assert outcome.mistake == "tasks-differ"
        assert "srun started 16 tasks on 1 node; trainer.devices is 1" in outcome.err
        assert "Traceback" not in outcome.err
    assert not Path("lightning_logs").exists()


def test_a_modelcheckpoint_of_the_user_does_not_write_over_ours(steady: Path, leaves: Path, bldml: Bldml) -> None:
    """Lightning would put it into the same folder, and its last.ckpt holds nothing to go on from."""
    own = "--trainer.callbacks+={class_path: ModelCheckpoint, init_args: {save_last: true, every_n_train_steps: 1}}"
    signalling.PLAN |= {"train 1 1": TERM}
    outcome = bldml("fit", *OPTIONS, "--data.root", leaves, "--run_name=hurt", own)
    assert outcome.code == 143
    run = Path("lightning_logs/hurt")
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt", "previous.ckpt"}
    assert (run / "more_checkpoints" / "last.ckpt").is_file()
    assert bldml("fit", "--trust_config", "--resume", run).code == 0
    assert (run / "history.csv").read_bytes() == (steady / "history.csv").read_bytes()


def test_a_callback_whose_state_cannot_be_read_back_is_named_at_the_first_save(leaves: Path, bldml: Bldml) -> None:
    outcome = bldml(
        "fit", *OPTIONS, "--data.root", leaves, "--run_name=r", "--trainer.callbacks+=tests.signalling.NotPlain"
    )
    assert outcome.code == 1
    assert "returns a value that is not plain from state_dict" in outcome.err
    assert "Traceback" not in outcome.err


def test_a_kill_between_two_renames_loses_nothing(steady: Path, leaves: Path, bldml: Bldml) -> None:
    run = interrupt(bldml, leaves, "train 1 1")
    run.last_checkpoint.rename(run.next_checkpoint)
    outcome = bldml("fit", "--trust_config", "--resume", run.path)
    assert outcome.code == 0
    assert "step 7" in outcome.err
    assert_same(run.path, steady)


def test_a_kill_in_the_last_save_leaves_no_other_name_and_no_part(steady: Path, bldml: Bldml, tmp_path: Path) -> None:
    run = RunFolder(Path(shutil.copytree(steady, tmp_path / "lightning_logs" / "hurt")))
    last = run.last_checkpoint.read_bytes()
    run.last_checkpoint.rename(run.next_checkpoint)
    (run.checkpoints / ".best.ckpt.part").write_bytes(last[:1000])
    assert bldml("fit", "--trust_config", "--resume", run.path).code == 0
    assert {path.name for path in run.checkpoints.iterdir()} == {"best.ckpt", "last.ckpt"}
    assert run.last_checkpoint.read_bytes() == last


def test_two_processes_without_slurm_stop_and_go_on_together(leaves: Path, tmp_path: Path) -> None:
    """Only the first process hears the signal; both must save, leave, and go on."""
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "MASTER_", "LOCAL_", "NODE_"))},
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    command = [sys.executable, "-m", "tests.three_layers", "fit", "--trust_config"]
    options = [*OPTIONS, f"--data.root={leaves}", "--trainer.devices=2", "--data.batch_size=4"]
    for name in ("steady", "hurt"):
        process = Prepared(
            [*command, *options, f"--run_name={name}"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
        )
        run = tmp_path / "lightning_logs" / name
        while name == "hurt" and process.poll() is None and not (run / "checkpoints/last.ckpt").exists():
            time.sleep(0.05)
        process.send_signal(TERM if name == "hurt" else 0)
        _, err = process.communicate(timeout=300)
        assert process.returncode == (143 if name == "hurt" else 0), err
    assert read_progress(run / "checkpoints/last.ckpt").world_size == 2
    assert Prepared([*command, "--resume", str(run)], cwd=tmp_path, env=environment).wait(300) == 0
    assert_same(run, tmp_path / "lightning_logs" / "steady")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gradient_scaler_goes_on_too(leaves: Path, bldml: Bldml, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fp16 on a GPU with deterministic algorithms."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    options = ("--trainer.accelerator=gpu", "--trainer.precision=16-mixed", "--trainer.deterministic=true")
    assert bldml("fit", *OPTIONS, "--data.root", leaves, "--run_name=steady", *options).code == 0
    hurt = stop_and_go_on(bldml, leaves, ["train 0 1", "val 1 0", "train 2 2"], *options)
    assert_same(hurt, Path("lightning_logs/steady"))
    scaler = checkpoint(hurt / "checkpoints" / "last.ckpt")["MixedPrecision"]
    assert scaler == checkpoint(Path("lightning_logs/steady/checkpoints/last.ckpt"))["MixedPrecision"]
    assert scaler["scale"] > 0


def test_a_job_whose_starts_never_finish_a_validation_ends(
    leaves: Path, bldml: Bldml, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a wall time that is too short: each start resumes in the validation, and begins it again."""
    monkeypatch.setenv("PATH", "")  # there is no scontrol: a job that could be requeued exits by the signal
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_NAME", "bldml-fit")
    first = ("fit", *OPTIONS, "--data.root", leaves, "--run_name=r")
    for restarts, code in enumerate((138, 138, 138, 1)):
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
        signalling.PLAN["val 0 0"] = USR1
        outcome = bldml(*first)
        assert outcome.code == code, outcome.err
        assert "Traceback" not in outcome.err
        assert "last.ckpt (epoch 0, 5 steps); the validation starts again." in outcome.err
    assert outcome.mistake == "stretches-without-progress"
    assert "Start-up took" in outcome.err
    assert "Validation was not finished after" in outcome.err
    assert ": 1 of 2 batches" in outcome.err
    assert re.search(r"sbatch --time=\d\d:\d\d:00 SCRIPT --resume .*lightning_logs/r", outcome.err)
    starts = json.loads(Path("lightning_logs/r/stretches.json").read_text())["stretches"]
    assert [(one["phase"], one["step"], one["signal"]) for one in starts] == [("validation", 5, "SIGUSR1")] * 4
    # In another job, or by hand, the run goes on.
    signalling.PLAN.clear()
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    assert bldml("fit", "--trust_config", "--resume=lightning_logs/r").code == 0
    starts = json.loads(Path("lightning_logs/r/stretches.json").read_text())["stretches"]
    assert (starts[-1]["phase"], starts[-1]["evaluated"]) == ("finished", ["train", "val", "test"])


def test_nothing_is_called_saved_that_was_saved_before(leaves: Path, bldml: Bldml) -> None:
    run = interrupt(bldml, leaves, "epoch 1")
    signalling.PLAN["epoch 1"] = TERM
    before = run.last_checkpoint.stat().st_mtime_ns
    outcome = bldml("fit", "--trust_config", "--resume", run.path)
    assert outcome.code == 143
    assert run.last_checkpoint.stat().st_mtime_ns == before
    assert "Nothing new to save in" in outcome.err
    assert "Saved" not in outcome.err


def test_a_clock_that_jumps(steady: Path, leaves: Path, bldml: Bldml, monkeypatch: pytest.MonkeyPatch) -> None:
    """No result depends on the clock, and no duration is taken from it."""
    jumping(monkeypatch)
    run = stop_and_go_on(bldml, leaves, ["train 0 2", "val 1 1"], kind=signal.SIGUSR1)
    assert_same(run, steady)
    most = time.monotonic() - STARTED
    starts = json.loads((run / "stretches.json").read_text())["stretches"]
    durations = [one[key] for one in starts for key in ("in_phase", "elapsed")]
    durations += [seconds for one in starts for seconds in one["seconds"].values()]
    durations += [json.loads((run / "evaluations/test/provenance.json").read_text())["seconds"]]
    assert all(0 <= seconds < most for seconds in durations)
    assert 0 < (measured(RunFolder(run)) or 0) < most
    assert bldml("test", run, "--trainer.accelerator=cpu").code == 0
    assert [one.evaluation for one in read_ledger(RunFolder(run))] == ["train", "val", "test", "test"]
    assert not re.search(r"-\d+(\.\d+)? (s|min|h)\b|-\d+:\d\d", (run / "log.txt").read_text())


def test_a_clock_of_1970(leaves: Path, bldml: Bldml, monkeypatch: pytest.MonkeyPatch) -> None:
    """Archives such as those of NumPy begin with the year 1980."""
    without_battery(monkeypatch)
    options = ("--data.root", leaves, "--run_name=early", "--trainer.max_epochs=1", "--data.cache_dir=cache")
    outcome = bldml("fit", *THREE_LAYERS, *options)
    assert outcome.code == 0, outcome.err
    assert "Traceback" not in outcome.err
    assert len(list(Path("cache").glob("*.npz"))) == 2  # indexes of images for training and for evaluation
    run = RunFolder(Path("lightning_logs/early"))
    assert json.loads(run.environment.read_text())["created"].startswith("1970-01-01")
    assert bldml("audit", leaves, "--output=audit", *ALONE).code in (0, 1)
