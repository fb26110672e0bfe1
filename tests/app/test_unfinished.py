"""An evaluation that is interrupted goes on behind what is done, ends the same, and counts as one look."""

import csv
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bldml.io.system import sha256_of
from bldml.run.digests.content import with_digests
from bldml.run.folder import RunFolder
from bldml.training.recording import PredictionRecorder
from bldml.training.resume.unfinished import NAME
from tests.support import THREE_LAYERS, Bldml

OPTIONS = (*THREE_LAYERS, "--trainer.max_epochs=1", "--unfreezing.stages=0", "--data.batch_size=2", "--report=true")
TERM = signal.SIGTERM
CPU = ("--trainer.accelerator=cpu", "--data.num_workers=0", "--data.batch_size=2", "--report=true")


class Killed(BaseException):
    """What a test raises in place of a SIGKILL."""


class Moments:
    """Sends a signal at each planned moment, once; writes down the batches that were evaluated."""

    def __init__(self) -> None:
        self.plan: dict[str, signal.Signals | None] = {}
        self.batches: list[str] = []

    def reach(self, moment: str) -> None:
        if moment in self.plan:
            signum = self.plan.pop(moment)
            if signum is None:
                raise Killed(moment)
            os.kill(os.getpid(), signum)


@pytest.fixture
def moments(monkeypatch: pytest.MonkeyPatch) -> Iterator[Moments]:
    found = Moments()

    def before(owner: Any, name: str, moment: str) -> None:
        original = getattr(owner, name)

        def reached(*args: Any, **kwargs: Any) -> Any:
            found.reach(moment)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, reached)

    def after_batch(
        recorder: PredictionRecorder, trainer: Any, module: Any, outputs: Any, batch: Any, index: int, *_: Any
    ) -> None:
        original(recorder, trainer, module, outputs, batch, index)
        found.batches += [f"{recorder.folder.name} {name}" for name in batch["path"]]
        found.reach(f"{recorder.folder.name} {len(recorder._names)}")

    original = PredictionRecorder.on_test_batch_end
    for name in ("on_test_batch_end", "on_validation_batch_end", "on_predict_batch_end"):
        monkeypatch.setattr(PredictionRecorder, name, after_batch)
    before(__import__("bldml.app.evaluation_record").app.evaluation_record, "format_metrics", "ledger")
    before(__import__("bldml.app.evaluation").app.evaluation, "say_cautions", "recorded")
    before(__import__("bldml.app.explain.pictures").app.explain.pictures, "make_pictures", "images")
    before(__import__("bldml.app.evaluation").app.evaluation, "report_run", "report")
    yield found
    assert not found.plan, "these moments were not reached"


def looks(run: RunFolder) -> list[str]:
    with run.ledger.open(encoding="utf-8", newline="") as file:
        return [row["evaluation"] for row in csv.DictReader(file)]


def content(folder: Path) -> dict[str, Any]:
    files = {name: (folder / name).read_bytes() for name in ("predictions.csv", "metrics.json")}
    return files | {path.name: path.read_bytes() for path in sorted((folder / "explanations").glob("*"))}


@pytest.fixture(scope="module")
def steady(split_leaves: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The run that nothing interrupts."""
    from bldml.cli import main

    folder, before = tmp_path_factory.mktemp("steady"), Path.cwd()
    os.chdir(folder)
    try:
        assert main(["fit", *OPTIONS, f"--data.root={split_leaves}", "--run_name=steady"]) == 0
    finally:
        os.chdir(before)
    return RunFolder(folder / "lightning_logs" / "steady")


@pytest.mark.parametrize("kind", [TERM, None], ids=["interrupted", "killed"])
@pytest.mark.parametrize("points", [("train 8", "val 6", "test 6"), ("images", "recorded"), ("ledger", "report")])
def test_a_fit_goes_on_behind_the_splits_that_are_done(
    points: tuple[str, ...], kind: signal.Signals | None, steady: RunFolder, split_leaves: Path, moments: Moments,
    bldml: Bldml,
) -> None:  # fmt: skip
    run, first = RunFolder(Path("lightning_logs/hurt")), ("--run_name=hurt", f"--data.root={split_leaves}", *OPTIONS)
    for number, point in enumerate([*points, ""]):
        moments.plan = {point: kind} if point else {}
        arguments = ("fit", *(first if number == 0 else ("--resume", run.path)))
        if point and kind is None:
            with pytest.raises(Killed):
                bldml(*arguments)
            continue
        outcome = bldml(*arguments)
        # The report is written when all is done; a signal that comes then changes nothing.
        assert outcome.code == (143 if point not in ("", "report", "recorded") else 0), outcome.err
        if point and not outcome.code:
            break
    for split in ("train", "val", "test"):
        name = f"evaluations/{split}"
        assert content(run.path / name) == content(steady.path / name), split
    assert looks(run) == ["train", "val", "test"]
    if kind is not None:
        assert len(moments.batches) == len(set(moments.batches)), "a photograph was evaluated twice"
    assert not (run.path / NAME).exists()
    assert (run.path / "report.html").is_file()
    # A person who evaluates again looks again.
    assert bldml("fit", "--resume", run.path, "--report=false").code == 0
    assert looks(run) == ["train", "val", "test"] * 2


@pytest.mark.parametrize("command", ["test", "validate", "predict", "external"])
def test_an_evaluation_goes_on_behind_its_last_batch(
    command: str, steady: RunFolder, split_leaves: Path, moments: Moments, bldml: Bldml
) -> None:
    run = RunFolder(Path(shutil.copytree(steady.path, "run")))
    before = looks(run)
    verb = "test" if command == "external" else command
    place = Path(shutil.copytree(split_leaves, "place"))
    arguments = [verb, run.path, *([] if command in ("test", "validate") else [place]), *CPU]
    name = {"test": "test", "validate": "val"}.get(command, "place")
    assert bldml(*arguments, "--output=whole").code == 0
    moments.batches.clear()
    for point in (f"{name} 4", "images"):
        if verb == "predict" and point == "images":
            continue
        moments.plan = {point: TERM}
        outcome = bldml(*arguments)
        assert outcome.code == 143, outcome.err
        assert "To resume, run the same command again." in outcome.err
    outcome = bldml(*arguments)
    assert outcome.code == 0, outcome.err
    folder = run.evaluation(name)
    for file in ("predictions.csv", "metrics.json"):
        assert (folder / file).exists() == (Path("whole") / file).exists()
        if (folder / file).exists():
            assert (folder / file).read_bytes() == (Path("whole") / file).read_bytes()
    assert len(moments.batches) == len(set(moments.batches))
    assert not (folder / NAME).exists()
    added = looks(run)[len(before) :]
    assert added == (["whole", name] if verb != "predict" else [])
    assert bldml(*arguments).code == 0
    assert len(looks(run)) == len(before) + 2 * len(added) - (1 if added else 0)


@pytest.mark.parametrize(
    "change", ["checkpoint", "photographs", "half", "batch", "device", "document", "list", "lengths"]
)
def test_what_is_kept_of_others_or_damaged_is_not_used(
    change: str, steady: RunFolder, split_leaves: Path, moments: Moments, bldml: Bldml
) -> None:
    run, root = RunFolder(Path(shutil.copytree(steady.path, "run"))), Path(shutil.copytree(split_leaves, "photographs"))
    arguments = ["test", run.path, root, *CPU[:-1], "--report=false", "--name=other"]
    moments.plan = {"other 4": TERM}
    assert bldml(*arguments).code == 143
    kept = run.evaluation("other") / NAME
    assert json.loads((kept / "unfinished.json").read_text())["passes"].keys() == {"test"}
    if change == "checkpoint":
        found = torch.load(run.best_checkpoint, weights_only=True)
        found["state_dict"] = {k: v * 2 if v.is_floating_point() else v for k, v in found["state_dict"].items()}
        torch.save(found, run.best_checkpoint)
    elif change == "photographs":
        sorted((root / "test" / "BLD").iterdir())[-1].unlink()
    elif change == "document":
        found = json.loads((kept / "unfinished.json").read_text())
        found |= {"passes": {"test": ["damaged"]}, "written": 3}
        (kept / "unfinished.json").write_text(json.dumps(found))
    elif change == "device":
        found = json.loads((kept / "unfinished.json").read_text())
        found["versions"]["device"] = "NVIDIA L40S"
        (kept / "unfinished.json").write_text(json.dumps(found))
    elif change in ("list", "lengths"):
        _replace_part(kept, "test", lambda part: [1] if change == "list" else part | {"names": part["names"][:-1]})
    elif change == "half":
        (kept / "test.pt").write_bytes((kept / "test.pt").read_bytes()[:-10])
    else:
        arguments.append("--data.batch_size=1")
    moments.batches.clear()
    outcome = bldml(*arguments)
    assert outcome.code == 0, outcome.err
    assert len(moments.batches) == (5 if change == "photographs" else 6)
    assert not kept.exists()


def _replace_part(kept: Path, split: str, change: Callable[[Any], Any]) -> None:
    """Change a file of logits, with its checksum in the document."""
    document, path = kept / "unfinished.json", kept / f"{split}.pt"
    found = json.loads(document.read_text())
    torch.save(change(torch.load(path, weights_only=True)), path)
    found["passes"][split]["sha256"] = sha256_of(path)
    document.write_text(json.dumps(with_digests("unfinished", found)))


@pytest.mark.parametrize("point", ["other 4", "recorded"])
@pytest.mark.parametrize("change", ["name", "group"])
def test_a_photograph_that_was_renamed_or_regrouped_meanwhile_is_not_mixed_up(
    change: str, point: str, steady: RunFolder, split_leaves: Path, moments: Moments, bldml: Bldml
) -> None:
    run, root = RunFolder(Path(shutil.copytree(steady.path, "run"))), Path(shutil.copytree(split_leaves, "photographs"))
    photographs = sorted((root / "test").glob("*/*"))
    manifest = Path("manifest.csv")
    rows = [
        f"{path.relative_to(root).as_posix()},{path.parent.name},test,tree {i}\n" for i, path in enumerate(photographs)
    ]
    manifest.write_text("path,label,split,group\n" + "".join(rows))
    arguments = ["test", run.path, root, *CPU[:-1], "--report=false"]
    arguments += ["--data.manifest", manifest] if change == "group" else []
    moments.plan = {point: TERM}
    assert bldml(*arguments, "--name=other").code == 143
    if change == "name":
        photographs[0].rename(photographs[0].with_name("z.jpg"))  # now in another place of the order, too
    else:
        manifest.write_text(manifest.read_text().replace("tree 1", "tree 0"))
    for name in ("other", "whole"):
        outcome = bldml(*arguments, f"--name={name}")
        assert outcome.code == 0, outcome.err
    assert content(run.evaluation("other")) == content(run.evaluation("whole"))


def test_the_seconds_of_earlier_starts_count(
    steady: RunFolder, split_leaves: Path, moments: Moments, bldml: Bldml
) -> None:
    run, root = RunFolder(Path(shutil.copytree(steady.path, "run"))), Path(shutil.copytree(split_leaves, "photographs"))
    arguments = ["test", run.path, root, *CPU[:-1], "--report=false", "--name=other"]
    moments.plan = {"other 4": TERM}
    assert bldml(*arguments).code == 143
    folder = run.evaluation("other")
    _replace_part(folder / NAME, "test", lambda part: part | {"seconds": part["seconds"] + 1000})
    assert bldml(*arguments).code == 0
    assert json.loads((folder / "provenance.json").read_text())["seconds"] > 1000
