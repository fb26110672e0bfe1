"""The Slurm job of this process: its tasks, whether it can be requeued, and which signals reach it."""

import signal
from collections.abc import Iterable, Mapping

from bldml.doctor.checks import Finding, Status, ok, ok_or_warn, skip, warn
from bldml.doctor.configuration import Settings
from bldml.doctor.slurm.parse import read_records
from bldml.doctor.slurm.script import parse_script
from bldml.doctor.tools import Answer, ask, is_on_path
from bldml.training.resume.job import INTERACTIVE_NAMES, interactive_kind

SIGNALS = (signal.SIGUSR1, signal.SIGTERM)
IGNORED = signal.SIG_IGN


def check_commands(environ: Mapping[str, str]) -> Iterable[Finding]:
    """Check that Slurm's commands are on the PATH; requeueing a job needs scontrol."""
    name = "Slurm commands"
    found = [program for program in ("sbatch", "srun", "scontrol") if is_on_path(program, environ)]
    missing = [program for program in ("sbatch", "srun", "scontrol") if program not in found]
    in_job = "SLURM_JOB_ID" in environ
    if not found and not in_job:
        yield skip(name, "there is no Slurm on this machine")
    elif in_job and "scontrol" in missing:
        yield warn(
            name,
            "scontrol is not on the PATH (a container?): the job cannot be requeued at its time limit",
            "make Slurm's commands visible in the container, or remove #SBATCH --requeue and resume by hand",
        )
    elif missing:
        yield warn(name, f"{', '.join(missing)} not on the PATH", "load the site's slurm module: module load slurm")
    else:
        yield ok(name, ", ".join(found))


def check_job(environ: Mapping[str, str], settings: Settings | None, gpus: int) -> Iterable[Finding]:
    """Check the job by its environment variables.

    Args:
        environ: The environment variables.
        settings: Settings of the fit; None if they are not known.
        gpus: Number of GPUs that PyTorch finds, for `trainer.devices: auto`.
    """
    number = environ.get("SLURM_JOB_ID")
    if number is None:
        yield skip("job", "this process is not in a Slurm job")
        return
    job_name = environ.get("SLURM_JOB_NAME", "")
    kind = interactive_kind(environ)
    if kind == "notebook":
        yield _check_notebook(environ, job_name)
    elif kind == "terminal":
        why = f"{job_name!r}" if job_name in INTERACTIVE_NAMES else "srun --pty"
        yield warn(
            "job name",
            f"{why}: an interactive job, which is neither resumed nor requeued by itself",
            "for a batch job: #SBATCH --job-name=bldml-fit, and srun without --pty",
        )
    else:
        yield ok("job name", job_name or "not known")
    if kind is not None:
        return
    if "SLURM_STEP_ID" in environ:
        yield ok("srun", f"step {environ['SLURM_STEP_ID']} of job {number}")
    else:
        yield warn(
            "srun",
            "not started by srun: the signal of --signal does not reach this process, and the job is not requeued",
            "put srun before the command: srun python -m bldml fit …",
        )
    yield from check_shape(environ, settings, gpus)


def _check_notebook(environ: Mapping[str, str], job_name: str) -> Finding:
    name = "notebook"
    if "SLURM_NTASKS" not in environ:
        return ok(name, f"{job_name or 'Jupyter'}; Lightning does not take it for a batch job")
    return warn(
        name,
        f"{job_name or 'Jupyter'} with {environ['SLURM_NTASKS']} tasks: Lightning by itself takes it for a batch job; "
        "it can neither receive Slurm's signals nor be requeued",
        "train with sbatch; for a short test in the notebook's terminal: "
        "SLURM_JOB_NAME=interactive python -m bldml fit …",
    )


def check_shape(environ: Mapping[str, str], settings: Settings | None, gpus: int) -> Iterable[Finding]:
    """Check that tasks and nodes of the job equal devices and nodes of the trainer; Lightning requires it."""
    # Without srun there is one process, whatever the job requested.
    worst: Status = "FAIL" if "SLURM_STEP_ID" in environ else "WARN"
    tasks, per_node = environ.get("SLURM_NTASKS", "1"), environ.get("SLURM_NTASKS_PER_NODE")
    if tasks != "1" and per_node is None:
        yield Finding(
            worst,
            "tasks",
            f"--ntasks={tasks} without --ntasks-per-node, which Lightning refuses under srun",
            "#SBATCH --ntasks-per-node=1     (instead of --ntasks; request CPUs with --cpus-per-task)",
        )
        return
    if settings is None:
        yield skip("tasks")
        return
    devices = count_devices(settings, gpus)
    found = f"{per_node or 1} per node on {environ.get('SLURM_NNODES', '1')} nodes"
    wanted = f"trainer.devices {settings.devices} on {settings.num_nodes} nodes"
    same_devices = devices is None or per_node is None or int(per_node) == devices
    same_nodes = environ.get("SLURM_NNODES", str(settings.num_nodes)) == str(settings.num_nodes)
    yield ok_or_warn(
        same_devices and same_nodes,
        "tasks",
        f"{found}; {wanted}",
        f"#SBATCH --nodes={settings.num_nodes} --ntasks-per-node={devices or settings.devices}, or "
        f"--trainer.num_nodes {environ.get('SLURM_NNODES', '1')} --trainer.devices {per_node or 1}",
        otherwise=worst,
    )


def count_devices(settings: Settings, gpus: int) -> int | None:
    """Return the processes per node that the trainer expects; None if this depends on another machine."""
    devices = settings.devices
    if isinstance(devices, int) and devices > 0:
        return devices
    if isinstance(devices, str) and devices.isdigit():
        return int(devices)
    if isinstance(devices, str) and "," in devices:
        return len([part for part in devices.split(",") if part.strip()])
    if settings.accelerator == "cpu":
        return 1
    return gpus or None


def check_current_job(environ: Mapping[str, str]) -> Iterable[Finding]:
    """Check this job as reported by Slurm: requeue, and the options in its script."""
    number = environ.get("SLURM_JOB_ID")
    if number is None or interactive_kind(environ) is not None:
        return
    record = ask("scontrol", "show", "job", "-o", number, environ=environ)
    script = ask("scontrol", "write", "batch_script", number, "-", environ=environ)
    yield from read_job(record, script)


def read_job(record: Answer, script: Answer) -> Iterable[Finding]:
    """Check requeue flag, signal and open mode of a job.

    Args:
        record: Output of `scontrol show job -o`.
        script: Output of `scontrol write batch_script`.
    """
    job = next(read_records(record.text), {}) if record.good else {}
    if not job:
        yield skip("job's requeue", f"not reported by Slurm: {record.problem or 'no such job'}")
        return
    requeue = job.get("Requeue")
    yield ok_or_warn(
        requeue == "1",
        "job's requeue",
        f"Requeue={requeue or 'not visible'}, restarts so far: {job.get('Restarts', 'not visible')}",
        "for this job, now: scontrol update JobId=$SLURM_JOB_ID Requeue=1; for the next: #SBATCH --requeue",
    )
    options = {option.name: option.value for option in parse_script(script.text).options} if script.good else {}
    for name, wanted in (("signal", "USR1@180"), ("open-mode", "append")):
        if options.get(name):
            yield ok(f"job's {name}", f"{options[name]} in the job's script")
        elif job.get("BatchFlag") == "0" or not script.good:
            yield skip(f"job's {name}", "not visible")
        else:
            yield warn(
                f"job's {name}",
                "not in the job's script; sbatch's command line is not visible",
                f"#SBATCH --{name}={wanted}",
            )


def check_signals(environ: Mapping[str, str]) -> Iterable[Finding]:
    """Check that the signals that end a job reach a process started like this one."""
    if "SLURM_JOB_ID" not in environ:
        return
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    blocked = [f"{s.name} blocked" for s in SIGNALS if s in mask]
    # A fit installs its own handlers, even for ignored signals, but does not change the mask.
    ignored = [f"{s.name} ignored at the start, which a fit changes" for s in SIGNALS if signal.getsignal(s) is IGNORED]
    yield ok_or_warn(
        not blocked,
        "signals",
        ", ".join(blocked + ignored) or "SIGUSR1 and SIGTERM arrive",
        "the program that starts python blocks them: start it with srun alone",
        otherwise="FAIL",
    )
