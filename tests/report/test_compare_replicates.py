"""Runs that differ in seed or fold alone are replicates, and `compare` takes them for no rivals."""

from pathlib import Path

import pytest

from tests.report.pages import Page, read
from tests.report.test_compare import PAPER, rows_of, write_run
from tests.support import Bldml

COUNTS = list(PAPER.values())


def run_of(
    folder: Path, number: int, backbone: str, seed: int, *, manifest: str = "", skip: int = 0, fold: str = ""
) -> Path:
    """A run with these settings; without its first `skip` photographs."""
    more = f", manifest: '{manifest}'" if manifest else ""
    more += f", fold: {fold}" if fold else ""
    config = (
        f"seed_everything: {seed}\nrun_name: {folder.name}\nmodel: {{backbone: {backbone}, seed: {seed}}}\n"
        f"data: {{positive_class: BLD, seed: {seed}{more}}}\n"
    )
    return write_run(folder, rows_of(COUNTS[number % 4], number)[skip:], config=config)


@pytest.mark.parametrize(
    ("others", "keys"),
    [
        ([{"seed": 2}, {"seed": 3}], "seed_everything"),
        ([{"seed": 1, "fold": "1"}], "data.fold"),
        ([{"seed": 2, "manifest": "s/folds/fold1.csv", "skip": 40}], "seed_everything and data.manifest"),
    ],
)
def test_replicates_alone_are_refused(tmp_path: Path, bldml: Bldml, others: list[dict[str, object]], keys: str) -> None:
    first = run_of(
        tmp_path / "logs" / "first", 0, "resnet50", 1,
        manifest="s/folds/fold0.csv" if "manifest" in others[0] else "", fold="0" if "fold" in others[0] else "",
    )  # fmt: skip
    runs = [
        run_of(tmp_path / "logs" / f"other{n}", n, "resnet50", **options)  # type: ignore[arg-type]
        for n, options in enumerate(others, 1)
    ]
    outcome = bldml("compare", first, *runs)
    assert outcome.mistake == "runs-are-replicates"
    assert outcome.fields == {"found": ["first", *(run.name for run in runs)], "key": keys}
    assert not Path("comparison").exists()


def test_folds_of_two_configurations_are_refused_as_replicates(tmp_path: Path, bldml: Bldml) -> None:
    runs = [
        run_of(tmp_path / "logs" / f"{name}{fold}", fold, name, 1, manifest=f"s/folds/fold{fold}.csv", skip=40 * fold)
        for name in ("resnet50", "mobilenet")
        for fold in (0, 1)
    ]
    outcome = bldml("compare", *runs)
    assert outcome.mistake == "runs-are-replicates"
    assert outcome.fields["found"] == ["resnet500", "resnet501"]


def test_replicates_among_rivals_are_not_tested_against_each_other(tmp_path: Path, bldml: Bldml) -> None:
    logs = tmp_path / "logs"
    one, two = (run_of(logs / f"resnet{seed}", seed, "resnet50", seed) for seed in (1, 2))
    other = run_of(logs / "mobilenet", 3, "mobilenet", 1)
    outcome = bldml("compare", one, two, other)
    assert outcome.code == 0, outcome.err
    pairs = {frozenset((row["first"], row["second"])) for row in read(Path("comparison/differences.csv"))}
    assert pairs == {frozenset(("resnet1", "mobilenet")), frozenset(("resnet2", "mobilenet"))}
    words = Page(Path("comparison/comparison.html")).words
    assert "not tested against each other: resnet1, resnet2." in words
    assert "all 2 pairs of rivals by accuracy" in words
    assert "better than every other run" not in words
    settings = {row["Setting"] for row in read(Path("comparison/settings.csv"))}
    assert {"seed_everything", "model.backbone"} <= settings  # in what the runs differ


def test_other_manifests_are_other_data(tmp_path: Path, bldml: Bldml) -> None:
    """A manifest that is no fold of a sweep is another training set, and so are runs with equal settings rivals."""
    logs = tmp_path / "logs"
    runs = [run_of(logs / site, n, "resnet50", 1, manifest=f"{site}.csv") for n, site in enumerate(("ohio", "maine"))]
    assert bldml("compare", *runs).code == 0
    same = [run_of(logs / f"again{n}", n, "resnet50", 1) for n in (0, 1)]
    assert bldml("compare", *same).code == 0
