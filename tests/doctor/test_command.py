"""`bldml doctor` as a user types it: without Slurm, with a Slurm that answers, with one that does not."""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch

from tests.support import REPOSITORY, SMALL, Bldml, Outcome

Rows = dict[str, list[dict[str, str]]]
Doctor = Callable[..., tuple[Outcome, Rows]]
SCONTROL = """\
case "$*" in
  "show config") echo "ClusterName = atlas"; echo "KillWait = 30 sec"; echo "SLURM_VERSION = 22.05.8";;
  "show partition -o") echo "PartitionName=gpu-v100 Default=YES MaxTime=2-00:00:00 GraceTime=0 State=UP";;
  "show reservation -o") echo "No reservations in the system";;
  "show job -o 7") echo "JobId=7 JobName=fit Requeue=1 Restarts=0 BatchFlag=1";;
  "write batch_script 7 -") echo "#!/bin/bash"; echo "#SBATCH --signal=USR1@180";;
  *) echo "unexpected: $*" >&2; exit 1;;
esac
"""
GOOD = """\
#!/bin/bash -l
#SBATCH --job-name=fit --account=beech --partition=gpu-v100 --gres=gpu:1 --nodes=1 --ntasks-per-node=1
#SBATCH --cpus-per-task=8 --time=1-00:00:00 --signal=USR1@180 --requeue --open-mode=append
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
srun python -m bldml fit --config "$1"
"""


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without Slurm, GPU and internet, outside any job; returns the folder of its programs."""
    for name in [*os.environ]:
        if name.startswith(("SLURM_", "SBATCH_", "SRUN_", "JPY_", "JUPYTER")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    programs = tmp_path / "bin"
    programs.mkdir()
    bash = shutil.which("bash")
    assert bash is not None
    (programs / "bash").symlink_to(bash)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{free.getsockname()[1]}")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    return programs


@pytest.fixture
def slurm(machine: Path) -> Callable[..., None]:
    """Give the machine Slurm's commands, as small programs that answer what Slurm was seen to answer."""

    def install(scontrol: str = SCONTROL, sbatch: str = "exit 0") -> None:
        for name, text in {"scontrol": scontrol, "sbatch": sbatch, "srun": "", "sinfo": "echo gpu-v100"}.items():
            (machine / name).write_text(f"#!{machine / 'bash'}\n{text}\n")
            (machine / name).chmod(0o755)

    return install


@pytest.fixture
def doctor(bldml: Bldml) -> Doctor:
    """Run the doctor; returns what was printed, and the rows of its JSON report by name."""

    def run(*arguments: str | Path) -> tuple[Outcome, Rows]:
        outcome = bldml("doctor", "--json=report.json", *arguments)
        assert "Traceback" not in outcome.out + outcome.err
        report = json.loads(Path("report.json").read_text(encoding="utf-8"))
        Path("report.json").unlink()
        assert report["exit_code"] == outcome.code
        rows: Rows = defaultdict(list)
        for finding in report["findings"]:
            rows[finding["name"]].append(finding)
            assert finding["name"] in outcome.out
            assert bool(finding["remedy"]) == (finding["status"] in ("WARN", "FAIL")), finding
        return outcome, rows

    return run


def statuses(rows: Rows, *names: str) -> list[str]:
    return [row["status"] for name in names for row in rows[name]]


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from bldml.cli import main; code = main(['doctor', '--help']);"
        "heavy = {'torch', 'lightning', 'jsonargparse'} & set(sys.modules);"
        "sys.exit(code or (str(heavy) if heavy else 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--sbatch FILE" in done.stdout
    assert "--json FILE" in done.stdout


def test_an_incomplete_installation_is_examined(tmp_path: Path) -> None:
    code = "import sys; sys.modules['PIL'] = None; from bldml.cli import main; sys.exit(main(['doctor']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "FAIL  torch, torchvision" in done.stdout
    assert "–     photographs" in done.stdout


def test_without_a_configuration_the_machine_is_checked(doctor: Doctor) -> None:
    outcome, rows = doctor()
    assert outcome.code == 0
    assert statuses(rows, "configuration", "photographs", "weights", "precision", "GPU memory") == ["SKIP"] * 5
    assert rows["photographs"][0]["found"] == "not checked: give --config"
    assert statuses(rows, "python", "lightning", "torch", "pillow", "torch, torchvision") == ["OK"] * 5
    assert statuses(rows, "GPU") == ["WARN"]
    assert statuses(rows, "Slurm commands", "job", "cluster") == ["SKIP"] * 3
    assert "–     photographs" in outcome.out
    assert outcome.out.endswith("No problem found that would stop a fit.\n")
    assert not list(Path().iterdir())


def test_fit_that_would_run(doctor: Doctor, leaves: Path) -> None:
    outcome, rows = doctor(*SMALL, "--data.root", leaves)
    assert outcome.code == 0, outcome.out
    names = ("configuration", "settings", "GPU", "weights", "photographs", "file names", "sample decoded", "loading")
    assert statuses(rows, *names) == ["OK"] * 8
    assert "train" in rows["photographs"][0]["found"]
    assert rows["photographs"][0]["found"].endswith("Positive class: BLD")
    assert rows["sample decoded"][0]["found"].startswith("32 of 60")
    assert "0 workers, batches of 8" in rows["loading"][0]["found"]
    assert rows["checkpoint write"][0]["found"].startswith("5 MB")
    assert not list(Path().iterdir())


def test_loader_runs_with_its_workers(doctor: Doctor, leaves: Path) -> None:
    _, rows = doctor(*SMALL, "--data.root", leaves, "--data.num_workers=1")
    assert statuses(rows, "loading") == ["OK"]
    assert "1 worker, batches" in rows["loading"][0]["found"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model.lrr=1"], "Did you mean --model.lr 1?"),
        (["--config=nosuch.yaml"], "nosuch.yaml cannot be read"),
        (["--print_config"], "an option that only prints"),
        (["--model.backbone=resnet51"], "resnet51"),
    ],
)
def test_command_line_that_is_not_valid(options: list[str], words: str, doctor: Doctor) -> None:
    outcome, rows = doctor(*options)
    assert outcome.code == 1
    assert statuses(rows, "configuration", "python", "locale", "TMPDIR") == ["FAIL", "OK", "OK", "OK"]
    assert words in rows["configuration"][0]["found"]


@pytest.mark.parametrize(
    ("option", "words"),
    [("--model.image_size=8", "image_size must be from 64"), ("--trainer.accelerator=gpu", "No supported gpu")],
)
def test_settings_that_cannot_be_used(option: str, words: str, doctor: Doctor, leaves: Path) -> None:
    outcome, rows = doctor(*SMALL, "--data.root", leaves, option)
    assert outcome.code == 1
    assert statuses(rows, "configuration", "settings") == ["OK", "FAIL"]
    assert words in rows["settings"][0]["found"]


def test_gpu_is_wanted_and_not_there(doctor: Doctor, leaves: Path) -> None:
    _, rows = doctor(*SMALL, "--data.root", leaves, "--trainer.accelerator=gpu")
    assert statuses(rows, "GPU") == ["FAIL"]
    # What does not depend on the GPU is still looked at.
    assert statuses(rows, "photographs", "loading") == ["OK", "OK"]


def damage(root: Path, count: int = 12) -> None:
    for path in sorted((root / "BLD").iterdir())[:count]:
        path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize(("option", "status"), [((), "FAIL"), (("--data.unreadable=exclude",), "WARN")])
def test_damaged_photographs(
    option: tuple[str, ...], status: str, doctor: Doctor, leaves: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(leaves, tmp_path / "data"))
    damage(root)
    outcome, rows = doctor(*SMALL, "--data.root", root, *option)
    assert outcome.code == int(status == "FAIL")
    assert statuses(rows, "sample decoded") == [status]
    assert "cannot be read; first: BLD/leaf_" in rows["sample decoded"][0]["found"]


def test_loader_that_fails(doctor: Doctor, leaves: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object, place: object) -> None:
        raise RuntimeError("no more shared memory")

    monkeypatch.setattr("bldml.training.data.loading.LeafDataset.__getitem__", fail)
    outcome, rows = doctor(*SMALL, "--data.root", leaves)
    assert outcome.code == 0
    assert statuses(rows, "loading") == ["WARN"]
    assert "no more shared memory" in rows["loading"][0]["found"]


def test_names_from_other_systems(doctor: Doctor, leaves: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(leaves, tmp_path / "data"))
    first = min((root / "BLD").iterdir())
    (root / "BLD" / f"._{first.name}").write_bytes(b"resource fork")
    shutil.copy(first, first.with_name(first.name.upper()))
    _, rows = doctor(*SMALL, "--data.root", root)
    assert statuses(rows, "file names") == ["WARN", "WARN"]
    assert first.name.upper() in rows["file names"][0]["found"]
    assert "-name '._*' -delete" in rows["file names"][1]["remedy"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data.root=nowhere"], "nowhere"),
        ([], "Where are the photographs?"),
        (["--data.manifest=none.csv"], "none.csv"),
        (["--data.root=LEAVES", "--data.positive_class=blight"], "There is no class 'blight'"),
    ],
)
def test_photographs_that_are_not_there(options: list[str], words: str, doctor: Doctor, leaves: Path) -> None:
    outcome, rows = doctor(*SMALL, *(option.replace("LEAVES", str(leaves)) for option in options))
    assert outcome.code == 1
    assert statuses(rows, "photographs") == ["FAIL"]
    assert words in rows["photographs"][0]["found"]


@pytest.fixture
def folds(bldml: Bldml, leaves: Path) -> Path:
    """A configuration with a manifest that has folds and no val, one that has both, and one without folds."""
    for name, options in {"only": ["--val=0", "--folds=3"], "both": ["--folds=3"], "none": []}.items():
        assert bldml("split", leaves, f"--output={name}.csv", *options).code == 0
    config = Path("folds.yaml")
    config.write_text(f"data: {{root: {leaves}, manifest: only.csv, fold: 1}}\n")
    return config


def test_a_fold_becomes_val(doctor: Doctor, folds: Path) -> None:
    outcome, rows = doctor(*SMALL, "--config", folds)
    assert outcome.code == 0, outcome.out
    assert statuses(rows, "photographs", "sample decoded", "loading") == ["OK", "OK", "OK"]
    found = rows["photographs"][0]["found"]
    assert "train 16 BLD, 16 No_BLD; val 8 BLD, 8 No_BLD; test 6 BLD, 6 No_BLD" in found
    assert found.endswith("Fold 1 of only.csv is val")
    _, rows = doctor(*SMALL, "--config", folds, "--data.manifest=both.csv", "--data.fold=null")
    assert statuses(rows, "photographs") == ["OK"]
    assert rows["photographs"][0]["found"].endswith("The folds of both.csv are not used: data.fold is not set")


@pytest.mark.parametrize(
    ("options", "name", "words", "remedy"),
    [
        (["--data.fold=7"], "photographs", "The manifest only.csv has no fold 7. Found: 0, 1, 2.", ""),
        (
            ["--data.manifest=none.csv"],
            "photographs",
            "The manifest none.csv has no fold 1. No non-test photograph",
            "",
        ),
        (["--data.fold=null"], "photographs", "There is no val split", "--data.fold 0"),
        (["--data.manifest=null"], "settings", "data.fold 1 needs a manifest", ""),
    ],
)
def test_a_fold_that_is_not_there(
    options: list[str], name: str, words: str, remedy: str, doctor: Doctor, folds: Path
) -> None:
    outcome, rows = doctor(*SMALL, "--config", folds, *options)
    assert outcome.code == 1
    assert statuses(rows, name) == ["FAIL"]
    assert words in rows[name][0]["found"]
    assert remedy in rows[name][0]["remedy"]


def test_pixels_kept_among_the_photographs(doctor: Doctor, leaves: Path) -> None:
    outcome, rows = doctor(*SMALL, "--data.root", leaves, "--data.cache_dir", leaves / "BLD" / "pixels")
    assert outcome.code == 1
    assert statuses(rows, "photographs") == ["FAIL"]
    assert "data.cache_dir" in rows["photographs"][0]["found"]
    assert not (leaves / "BLD" / "pixels").exists()


RESNET = ("--model.backbone=resnet50", "--model.image_size=64", "--trainer.accelerator=cpu")


def test_weights_that_are_not_here(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    _, rows = doctor(*RESNET)
    assert statuses(rows, "weights") == ["FAIL"]
    assert "python -m bldml prefetch --backbone resnet50" in rows["weights"][0]["remedy"]
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        url = f"http://127.0.0.1:{server.server_port}/resnet50-11ad3fa6.pth"
        monkeypatch.setattr("bldml.training.weights.weights_url", lambda name: url)
        thread = threading.Thread(target=server.handle_request)  # with an error, which is an answer too
        thread.start()
        _, rows = doctor(*RESNET)
        thread.join()
    assert statuses(rows, "weights") == ["WARN"]
    assert "can be reached" in rows["weights"][0]["found"]


def test_weights_are_compared_with_their_name(doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"weights"
    file = tmp_path / f"resnet50-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    file.write_bytes(content)
    monkeypatch.setattr("bldml.training.weights.weights_file", lambda name: file)
    _, rows = doctor(*RESNET)
    assert statuses(rows, "weights") == ["OK"]
    file.write_bytes(content + b"!")
    _, rows = doctor(*RESNET)
    assert statuses(rows, "weights") == ["FAIL"]
    assert f"rm {file}" in rows["weights"][0]["remedy"]


def test_architecture_without_weights(doctor: Doctor) -> None:
    _, rows = doctor("--model.backbone=mobilenet_v2_x0_35", "--trainer.accelerator=cpu")
    assert statuses(rows, "weights") == ["FAIL"]
    assert "torchvision has no weights" in rows["weights"][0]["found"]


def test_weights_of_ones_own(doctor: Doctor, tmp_path: Path) -> None:
    file = tmp_path / "own.pth"
    options = (*SMALL, f"--model.weights={file}")
    assert statuses(doctor(*options)[1], "weights") == ["FAIL"]
    file.write_bytes(b"no weights")
    assert statuses(doctor(*options)[1], "weights") == ["FAIL"]
    torch.save([1, 2], file)
    assert statuses(doctor(*options)[1], "weights") == ["FAIL"]
    torch.save({"layer": torch.ones(3)}, file)
    assert statuses(doctor(*options)[1], "weights") == ["OK"]


def test_check_that_breaks_is_a_row(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> Iterator[None]:
        raise ZeroDivisionError("by chance")

    monkeypatch.setattr("bldml.doctor.software.check_software", broken)
    monkeypatch.setattr("bldml.doctor.hardware.detect_gpu", broken)
    outcome, rows = doctor()
    assert outcome.code == 0
    assert statuses(rows, "software", "GPU", "CPUs", "TMPDIR") == ["WARN", "WARN", "OK", "OK"]
    assert "ZeroDivisionError: by chance" in rows["software"][0]["found"]


@pytest.mark.parametrize(
    ("where", "row"),
    [("bldml.doctor.storage.nearest_existing", "checkpoint write"), ("pathlib.Path.home", "home folder")],
)
def test_folder_that_cannot_be_found_is_a_row(
    where: str, row: str, doctor: Doctor, leaves: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Path:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(where, broken)
    _, rows = doctor(*SMALL, "--data.root", leaves)
    assert statuses(rows, row, "umask") == ["WARN", "OK"]


@pytest.mark.parametrize(
    ("arguments", "mistake", "key"),
    [
        (["--sbatch"], "doctor-option-empty", "--sbatch"),
        (["--json"], "doctor-option-empty", "--json"),
        (["--sbatch", "--json", "a"], "doctor-option-empty", "--sbatch"),
        (["--sbatch=a", "--sbatch=b"], "doctor-option-twice", "--sbatch"),
    ],
)
def test_own_options_that_cannot_be_understood(arguments: list[str], mistake: str, key: str, bldml: Bldml) -> None:
    outcome = bldml("doctor", *arguments)
    assert (outcome.mistake, outcome.fields["key"]) == (mistake, key)
    assert not outcome.out


def test_report_that_cannot_be_written(bldml: Bldml) -> None:
    outcome = bldml("doctor", "--json", "nowhere/report.json")
    assert outcome.mistake == "file-not-writable"
    assert "TMPDIR" in outcome.out


def test_sbatch_file_on_a_machine_without_slurm(doctor: Doctor) -> None:
    Path("fit.sbatch").write_text(GOOD.replace("--account=beech", "--account=CHANGE_ME"))
    _, rows = doctor("--sbatch", "fit.sbatch")
    assert statuses(rows, "sbatch options", "sbatch syntax", "sbatch srun") == ["OK", "OK", "OK"]
    assert statuses(rows, "sbatch --account", "sbatch --test-only", "cluster") == ["WARN", "SKIP", "SKIP"]
    assert len(rows["PyTorch for gpu-v100"]) == 1


@pytest.mark.parametrize("text", [None, "", "#" * (2**22 + 1)])
def test_sbatch_file_that_is_no_file(text: str | None, doctor: Doctor) -> None:
    if text is not None:
        Path("fit.sbatch").write_text(text)
    outcome, rows = doctor("--sbatch=fit.sbatch")
    assert outcome.code == 1
    assert statuses(rows, "sbatch file", "TMPDIR") == ["FAIL", "OK"]


def test_sbatch_file_that_slurm_takes(doctor: Doctor, slurm: Callable[..., None], machine: Path) -> None:
    asked = machine / "asked"
    slurm(sbatch=f'echo "$*" >>{asked}')
    Path("fit.sbatch").write_text(GOOD)
    _, rows = doctor("--sbatch=fit.sbatch", *SMALL)
    sbatch = [row for name in rows if name.startswith("sbatch") for row in rows[name]]
    assert {row["status"] for row in sbatch} == {"OK"}, sbatch
    assert statuses(rows, "cluster", "partition gpu-v100", "maintenance", "Slurm commands") == ["OK"] * 4
    assert "KillWait 30 s" in rows["checkpoint write"][0]["found"]
    # Nothing was asked of sbatch but this.
    assert asked.read_text() == f"--test-only {Path('fit.sbatch').absolute()}\n"


def test_sbatch_file_that_slurm_refuses(doctor: Doctor, slurm: Callable[..., None]) -> None:
    slurm(sbatch='echo "allocation failure: Invalid account" >&2; exit 1')
    Path("fit.sbatch").write_text(GOOD.replace("-p gpu", "gpu").replace("=gpu-v100", "=gpu-v10"))
    outcome, rows = doctor("--sbatch=fit.sbatch")
    assert outcome.code == 1
    assert statuses(rows, "sbatch --partition", "sbatch --test-only") == ["FAIL", "FAIL"]
    assert rows["sbatch --test-only"][0]["found"] == "allocation failure: Invalid account"


@pytest.mark.parametrize(
    ("scontrol", "words"),
    [
        ("echo 'scontrol: error: one' >&2; echo 'Unable to contact slurm controller' >&2; exit 1", "Unable to contact"),
        ("exec >&- 2>&-; while true; do read -t 1 -r <> <(:); done", "did not answer within"),
    ],
)
def test_slurm_that_does_not_answer(
    scontrol: str, words: str, doctor: Doctor, slurm: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bldml.doctor.tools.TIMEOUT_S", 0.3)
    slurm(scontrol)
    Path("fit.sbatch").write_text(GOOD)
    _, rows = doctor("--sbatch=fit.sbatch")
    assert statuses(rows, "cluster", "sbatch --test-only") == ["SKIP", "SKIP"]
    assert words in rows["cluster"][0]["found"]
    assert "\n" not in rows["cluster"][0]["found"]


def test_inside_a_job(doctor: Doctor, slurm: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    slurm()
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "fit", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0",
           "SLURM_JOB_PARTITION": "gpu-v100"}  # fmt: skip
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    _, rows = doctor()
    assert statuses(rows, "job name", "srun", "job's requeue", "job's signal", "signals") == ["OK"] * 5
    assert statuses(rows, "job's open-mode", "tasks", "partition gpu-v100") == ["WARN", "SKIP", "OK"]
    assert "maintenance" not in rows  # this job has started
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        outcome, rows = doctor()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert outcome.code == 1
    assert rows["signals"][0]["found"] == "SIGTERM blocked"


def test_more_stages_than_there_are(leaves: Path, bldml: Bldml) -> None:
    for option, words in (("stages=9", "9 stages cannot be unfrozen"), ("blocks=40", "40 blocks cannot be unfrozen")):
        outcome = bldml("doctor", *SMALL, "--data.root", leaves, f"--unfreezing.{option}")
        assert outcome.code == 1
        assert words in outcome.out


@pytest.fixture
def small_checkout(bldml: Bldml, leaves: Path) -> None:
    """The scripts for Slurm, and small configurations of the names that they know."""
    shutil.copytree(REPOSITORY / "scripts", "scripts")
    Path("configs").mkdir()
    options = dict(option.removeprefix("--").split("=", 1) for option in SMALL)
    text = f"data.root: {leaves}\n" + "".join(f"{key}: {value}\n" for key, value in options.items())
    for name in ("efficientnet", "resnet50", "mobilenet", "inception"):
        Path(f"configs/{name}.yaml").write_text(text)
    Path("configs/slurm.yaml").write_text("{}\n")


@pytest.mark.usefixtures("small_checkout")
def test_command_of_sbatch_as_it_is_typed(
    doctor: Doctor, slurm: Callable[..., None], machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = machine / "asked"
    slurm(sbatch=f'echo "$*" >>{asked}')
    monkeypatch.setenv("SBATCH_ACCOUNT", "beech")
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "50")
    file = "scripts/slurm/fit.sbatch"
    _, rows = doctor("sbatch", "--time=3", "-p", "gpu-v100", file, "configs/resnet50.yaml", "--data.batch_size=4")
    assert asked.read_text() == f"--test-only --time=3 -p gpu-v100 {Path(file).absolute()}\n"
    assert rows["configuration"][0]["found"].startswith("configs/resnet50.yaml, configs/slurm.yaml")
    assert "batches of 4" in rows["loading"][0]["found"]
    names = ("sbatch --account", "sbatch --partition", "sbatch --time", "time of one start", "sbatch environment")
    assert statuses(rows, *names) == ["OK", "OK", "OK", "FAIL", "OK"]


@pytest.mark.usefixtures("small_checkout")
def test_all_configurations_of_an_array(doctor: Doctor) -> None:
    with Path("configs/inception.yaml").open("a") as file:
        file.write("model.lrr: 1\n")
    Path("lightning_logs/sweep_mobilenet").mkdir(parents=True)
    outcome, rows = doctor("--sbatch=scripts/slurm/backbones.sbatch", "--run_name=sweep", "--data.batch_size=4")
    assert outcome.code == 1
    failed = {name for name in rows if statuses(rows, name) == ["FAIL"]}
    assert failed == {"configuration (inception)", "run name"}
    assert rows["sbatch --array"][0]["found"] == "0-3: efficientnet, resnet50, mobilenet, inception"
    assert "sweep_mobilenet already exists" in rows["run name"][0]["found"]
    # What is the same for all is said once.
    assert [name for name in rows if name.startswith(("photographs", "weights", "sbatch --time"))] == [
        "weights folder", "weights", "photographs", "sbatch --time",
    ]  # fmt: skip


def test_sbatch_twice(bldml: Bldml) -> None:
    outcome = bldml("doctor", "--sbatch=a.sbatch", "sbatch", "b.sbatch")
    assert outcome.mistake == "doctor-two-submissions"
    assert bldml("doctor", "sbatch", "--wrap=true").mistake == "doctor-no-script"
