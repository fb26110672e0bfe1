"""What the runs of an experiment show together, as far as they are done."""

from collections.abc import Mapping

from bldml import __version__
from bldml.dataset.files import show_path
from bldml.report.tables import interval_text, precise_number
from bldml.sweep.plan import SweepFolder, read_plan
from bldml.sweep.results.assessment import Findings, assess_experiment
from bldml.sweep.results.gathering import gather
from bldml.sweep.results.opened import read_opened
from bldml.sweep.results.page import write_sweep
from bldml.sweep.results.tables import extent
from bldml.sweep.results.trials import experiment_verdict


def collect(folder: SweepFolder, reasons: Mapping[str, str] | None = None) -> str:
    """Write `sweep.html` and its tables into the folder of an experiment, from the runs that are done.

    Args:
        folder: The folder of the experiment.
        reasons: Why runs have not finished, by name: half a sentence for the table of runs.

    Returns:
        What to say in the terminal.

    Raises:
        RunError: There is no plan, or the files cannot be written.
    """
    plan = read_plan(folder)
    findings = assess_experiment(gather(folder, plan, reasons or {}), read_opened(folder, plan, reasons or {}))
    write_sweep(findings, folder.path, version=__version__)
    lines = [*_figures(findings), *experiment_verdict(findings)]
    return "\n".join([*lines, f"Written: {show_path(folder.path / 'sweep.html')}", ""])


def _figures(findings: Findings) -> list[str]:
    """Return one line for each configuration with a result."""
    found = []
    for one in findings.displayed:
        figures = findings.of(one, findings.metric)
        if figures is not None:
            estimate = figures.estimate
            value = "not estimable" if estimate.value is None else precise_number(estimate.value)
            of = extent(one, findings.experiment.plan.folds)
            found.append(
                f"{one.name}: {findings.metric.label} {value} {interval_text(estimate)} ({of})".replace("  ", " ")
            )
    return found
