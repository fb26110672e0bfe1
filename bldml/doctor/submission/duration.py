"""Whether the parts of a fit that are repeated after an interruption fit between a job's start and its signal."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bldml.doctor.checks import Finding, fail, ok, ok_or_warn, warn
from bldml.doctor.configuration import Settings
from bldml.doctor.slurm import UNLIMITED, format_time, time_limit
from bldml.doctor.storage import run_folder
from bldml.doctor.submission.sbatch import JobRequest, read_signal
from bldml.run.folder import RunFolder

EARLY_S = 60  # Slurm may send the signal so much earlier than set
SHORT_S = 300  # of which the start alone may take most: imports and photographs from a cold file system
MAX_RUNS = 50  # the newest are searched


@dataclass(frozen=True)
class EarlierRun:
    """What an earlier run of the same network recorded."""

    name: str = ""
    device: str = ""
    start: float | None = None  # seconds from the start of the process to the first step
    validation: float = 0.0  # seconds of a pass over val
    evaluations: float = 0.0  # seconds of all evaluations after the training


def find_earlier(runs: Path, settings: Settings) -> EarlierRun | None:
    """Return the newest run of the same backbone and image size that was evaluated; None if there is none."""
    from bldml.io.documents import load_yaml, mapping_or_nothing
    from bldml.run.provenance import to_provenance
    from bldml.training.resume.stretches import read_starts

    folders = sorted(runs.glob("*/config.yaml"), key=lambda path: path.stat().st_mtime, reverse=True)
    for config in folders[:MAX_RUNS]:
        run = RunFolder(config.parent)
        try:
            model = load_yaml(config.read_text(encoding="utf-8"))["model"]
            same = (model["backbone"], model.get("image_size") or settings.image_size)
        except Exception:  # a damaged or foreign file is no earlier run
            continue
        if same != (settings.backbone, settings.image_size):
            continue
        found = {
            path.parent.name: to_provenance(mapping_or_nothing(path))
            for path in sorted((run.path / "evaluations").glob("*/provenance.json"))
        }
        seconds = {name: one.seconds for name, one in found.items() if one.seconds}
        starts = [one.seconds for one in read_starts(run)]
        validation = max((each.get("validation", 0.0) for each in starts), default=0.0) or seconds.get("val", 0.0)
        if validation:
            device = next((one.device for one in found.values() if one.device), "")
            # The first start decodes the photographs, which are in the cache for the others.
            start = min((each["start-up"] for each in starts if "start-up" in each), default=None)
            return EarlierRun(run.path.name, device, start, validation, sum(seconds.values()))
    return None


def time_before_signal(request: JobRequest) -> int | None:
    """Return the seconds between start and signal of a job, at least; None if there is no limit or no signal."""
    script = request.script
    limit = time_limit(request.site, request.partition, script.value("time-min") or script.value("time"))
    signal = read_signal(script.value("signal"))
    return None if limit is None or limit >= UNLIMITED or signal is None else limit - signal[2] - EARLY_S


def check_duration(request: JobRequest) -> Iterable[Finding]:
    """Check that a start of the job can make progress: a validation is repeated if it is interrupted."""
    left = time_before_signal(request)
    if left is None or request.settings is None:
        return
    name, times = "time of one start", f"{format_time(max(left, 0))} before the signal"
    longer = f"#SBATCH --time={format_time(left_to_limit(request, 4 * SHORT_S))}     (or more)"
    if left <= 0:
        found = f"--time and --signal={request.script.value('signal')} leave no time: Slurm may send the signal at once"
        yield fail(name, f"{found}, and the job would be requeued without a step", longer)
        return
    earlier = find_earlier(run_folder(request.settings), request.settings)
    if earlier is None:
        found = f"{times}; no earlier run of {request.settings.backbone} to compare with"
        yield ok_or_warn(left >= SHORT_S, name, f"{found}; the start alone may take minutes", longer)
        return
    start, validation = earlier.start, earlier.validation
    took = [f"{start:.0f} s to start"] if start is not None else []
    took += [f"{validation:.0f} s for a pass over val"]
    took += [f"{earlier.evaluations:.0f} s for all its evaluations"] if earlier.evaluations else []
    found = f"{times}; {earlier.name}{f' on {earlier.device}' if earlier.device else ''} took {', '.join(took)}"
    enough = int(2 * validation + (SHORT_S if start is None else 2 * start))
    longer = f"#SBATCH --time={format_time(left_to_limit(request, enough))}     (or more)"
    if (start or 0.0) + validation > left:
        ends = "a validation may not end before the signal, and after three such starts the job would fail"
        yield warn(name, f"{found}: {ends}", longer)
    elif enough > left:
        yield warn(name, f"{found}; with the start, a validation may not end", longer)
    else:
        yield ok(name, found)


def left_to_limit(request: JobRequest, seconds: int) -> int:
    """Return the time limit of a job that leaves so many seconds before the signal, in whole minutes."""
    signal = read_signal(request.script.value("signal"))
    whole = seconds + EARLY_S + (signal[2] if signal else 0)
    return -(-whole // 60) * 60
