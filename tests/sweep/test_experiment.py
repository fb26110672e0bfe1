"""The file of an experiment: every key by type, and names that are different whatever the values are."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from bldml.dataset.folders import read_folders
from bldml.errors import BldmlError, ConfigError, UsageError
from bldml.sweep.command import run_sweep
from bldml.sweep.experiment import ExperimentFile, read_experiment
from bldml.sweep.plan import Plan, SweepFolder, check_cases, default_folder, read_plan
from bldml.sweep.planning import arguments_of, plan_experiment
from bldml.sweep.search.space import DEFAULTS
from tests.support import REPOSITORY, mistake

GRID = "grid: {data.positive_class: [%s]}"


def read(folder: Path, text: str) -> ExperimentFile:
    (folder / "one.yaml").write_text(text)
    return read_experiment(folder / "one.yaml")


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ("a, 'a ', a-2", ["a", "a-2", "a-2-2"]),
        ("a-2, a, 'a '", ["a-2", "a", "a-3"]),
        ("a, A", ["a", "A-2"]),
        (f"{'x' * 130}, {'x' * 140}", ["x" * 105, f"{'x' * 105}-2"]),
    ],
)
def test_names_of_a_grid_are_different(tmp_path: Path, values: str, names: list[str]) -> None:
    found = [one.name for one in read(tmp_path, GRID % values).candidates]
    assert found == [f"positive_class-{name}" for name in names]


@pytest.mark.parametrize(
    "text",
    ["base: .hidden", f"base: {'x' * 201}.yaml", f"configurations: [{{name: {'x' * 195}}}]\nseeds: [1]\nfolds: 2"],
)
def test_a_name_that_no_folder_can_have_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="name '"):
        read(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            f"{key}: {value}"
            for key in ("base", "options", "grid", "configurations", "seeds", "folds", "metric", "chosen", "1", "true")
            for value in ("3", "[[x]]", "{1: 2}", "{x: {y: z}}", "[1.5]", "true")
            if (key, value) not in {("options", "{1: 2}"), ("options", "{x: {y: z}}"), ("folds", "3")}
        ),
        "configurations: [text]",
        "configurations: [{name: [a]}]",
        "configurations: [{name: a, base: 3}]",
        "seeds: [4294967296]",
        f"base: [{', '.join(['a.yaml'] * 101)}]",
        f"options: {{model{'.a' * 30}: 1}}",
        f"search: {{trials: 2, ranges: {{model.lr: {list(range(10_001))}}}}}",
        *(
            f"folds: {{number: 2, {key}: {value}}}"
            for key in ("group", "seed", "val", "gap_seconds")
            for value in ("[1]", "{a: 1}")
        ),
    ],
)  # fmt: skip
def test_every_key_is_refused_by_type_with_a_sentence(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(tmp_path, text)
    assert error.value.code == "experiment-wrong"
    assert str(error.value).endswith((".", "?"))


@pytest.mark.parametrize(
    "text",
    [
        f"grid: {{{', '.join(f'model.k{key}: {list(range(10))}' for key in range(10))}}}",
        f"grid: {{model.lr: {list(range(60_000))}}}",
        f"configurations: [{', '.join(f'{{name: c{number}}}' for number in range(20_000))}]",
        f"seeds: {list(range(20_000))}",
        "folds: 1000000000",
        f"seeds: {list(range(101))}\nsearch: {{trials: 100}}",
        f"folds: {10**90}\nsearch: {{trials: 2}}",
    ],
)
def test_more_runs_than_anybody_means(tmp_path: Path, text: str) -> None:
    """A grid of ten keys with ten values each was written out first, and each of 9,000 configurations was parsed."""
    with pytest.raises(ConfigError, match="at most 10,000 runs") as error:
        read(tmp_path, text)
    assert error.value.code == "experiment-too-large"
    assert "one.yaml: " in str(error.value)


def test_names_that_differ_in_case_alone_are_those_of_an_older_plan(tmp_path: Path) -> None:
    found = read(tmp_path, "configurations: [{name: a}, {name: A}]")
    with mistake("configurations-differ-in-case", found="A", expected="a"):
        check_cases(found.path, found.candidates, None)
    before = Plan("one", found.candidates, (), "auroc")
    check_cases(found.path, found.candidates, before)
    with mistake("configurations-differ-in-case", found="A", expected="a"):
        check_cases(found.path, found.candidates, replace(before, configurations=found.candidates[:1]))


def test_only_a_folder_that_the_user_names_must_lie_outside_the_photographs(
    tmp_path: Path, leaves: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With data.root: ., the default folder is among them, as lightning_logs of a fit is."""
    shutil.copytree(leaves, tmp_path / "leaves")
    monkeypatch.chdir(tmp_path / "leaves")
    text = "options: {model: {backbone: mobilenet_v2_x0_35, weights: none}, data.root: ., data.positive_class: BLD}"
    experiment = read(tmp_path, text)
    with mistake("output-among-photographs") as caught:
        plan_experiment(experiment, SweepFolder(Path("out")))
    assert f"the photographs, {tmp_path / 'leaves'}. Choose" in str(caught.value)
    plan_experiment(experiment, SweepFolder(default_folder(experiment.path)))
    shutil.copytree("sweeps/one", "out")
    plan_experiment(experiment, SweepFolder(Path("out")))


def test_aliases_apply_once_and_paths_are_absolute(
    tmp_path: Path, leaves: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With aliases in a chain, a label that was replaced already would be replaced again."""
    (tmp_path / "leaves").symlink_to(leaves)
    monkeypatch.chdir(tmp_path)
    experiment = read(
        tmp_path,
        "options: {model: {backbone: mobilenet_v2_x0_35, weights: none}, data.root: leaves,\n"
        "  data.positive_class: sick, data.class_aliases: {BLD: sick, No_BLD: BLD}}\nseeds: [1]\nfolds: 2",
    )
    folder = SweepFolder(Path("out"))
    run = plan_experiment(experiment, folder).runs[0]
    original = {one.name: one.original_class for one in read_folders(Path("leaves")).samples()}
    for path in (folder.manifest(0), folder.manifest(1), folder.final):
        with path.open(encoding="utf-8", newline="") as file:
            assert all(row["label"] == original[row["path"]] for row in csv.DictReader(file))
    folder.run(run.name).path.mkdir(parents=True)
    folder.run(run.name).config.write_text("{}")
    assert arguments_of(folder, read_plan(folder).runs[0])[2:] == [
        f"--data.root={tmp_path / 'leaves'}", f"--data.manifest={tmp_path / 'out' / 'folds' / 'fold0.csv'}",
    ]  # fmt: skip
    assert plan_experiment(experiment, folder).digests.keys() == {"fold0.csv", "fold1.csv", "final.csv"}
    folder.manifest(1).write_text(folder.manifest(1).read_text().replace(",val,", ",train,", 1))
    with pytest.raises(BldmlError, match=r"folds/fold1\.csv is missing or was changed"):
        plan_experiment(experiment, folder)
    for one in read_plan(folder).runs:
        folder.run(one.name).path.mkdir(exist_ok=True)
        (folder.run(one.name).path / "stretches.json").write_text('{"stretches": [{"phase": "finished"}]}')
    plan_experiment(experiment, folder)  # no run is left that would read it


def test_a_run_that_somebody_else_interrupted_is_named(
    tmp_path: Path, leaves: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program.sh"
    program.write_text("#!/bin/sh\nexit 143\n")
    program.chmod(0o755)
    monkeypatch.setattr("bldml.sweep.local.program", lambda: [str(program)])
    (tmp_path / "one.yaml").write_text(
        f"options: {{model: {{backbone: mobilenet_v2_x0_35, weights: none}}, data.root: {leaves}, "
        "data.positive_class: BLD}\n"
    )
    with pytest.raises(BldmlError, match=r"1 run is not finished: plain \(missing\)") as error:
        run_sweep(tmp_path / "one.yaml", tmp_path / "out", 1)
    assert error.value.exit_code == 1


def test_a_baseline_for_each_backbone_is_added(tmp_path: Path) -> None:
    """It has what its features depend on, and not what only a training uses; one that is written already stays."""
    (tmp_path / "base.yaml").write_text("model: {backbone: a, weights: none}\ndata: {augmentation: null}\n")
    listed = """
base: {base}
baseline: true
chosen: logistic_timm-b.c
configurations:
  - {{name: one, model.lr: 0.1, model.image_size: 96, data.batch_size: 4, unfreezing.stages: 2}}
  - {{name: two, model.backbone: timm:b.c, data.class_aliases: {{x: y}}, trainer.max_epochs: 3}}
  - {{name: three, model.backbone: d}}
  - {{name: own, model.backbone: d, model.head: logistic}}
  - {{name: four, model.backbone: a, model.image_size: 128}}
"""
    found = read(tmp_path, listed.format(base=tmp_path / "base.yaml")).candidates
    assert [one.name for one in found[5:]] == ["logistic_a", "logistic_timm-b.c", "logistic_a-2"]
    assert found[7].options == {"model.backbone": "a", "model.image_size": 128, "model.head": "logistic"}
    assert found[5].options == {"model.image_size": 96, "model.head": "logistic"}
    assert found[6].options == {
        "model.backbone": "timm:b.c", "data.class_aliases": {"x": "y"}, "model.head": "logistic",
    }  # fmt: skip
    assert [one.name for one in read(tmp_path, "baseline: true").candidates] == ["plain", "logistic"]
    for wrong in ("baseline: logistic", "baseline: true\nconfigurations: [{name: logistic}]"):
        with pytest.raises(ConfigError, match="baseline"):
            read(tmp_path, wrong)


def test_the_search_that_is_shipped_has_the_default_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    for path in sorted(Path("experiments").glob("*.yaml")):
        found = read_experiment(path)
        assert all(base.is_file() for base in found.base)
        assert (found.search is not None) == (path.stem == "search")
        assert found.search is None or found.search.ranges == DEFAULTS
