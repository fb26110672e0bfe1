"""The job that this process runs in: its shape, whether it can be requeued, and which signals reach it."""

import signal
from collections.abc import Iterable, Mapping

from bldml.doctor.checks import Finding, Status, ok, ok_or_warn, skip, warn
from bldml.doctor.configuration import Settings
from bldml.doctor.slurm.parse import read_records
from bldml.doctor.slurm.script import parse_script
from bldml.doctor.tools import Answer, ask, is_there

TYPED = ("bash", "interactive")
NOTEBOOK_VARIABLES = ("JPY_PARENT_PID", "JPY_SESSION_NAME", "JUPYTERHUB_USER", "JUPYTER_SERVER_ROOT")
SIGNALS = (signal.SIGUSR1, signal.SIGTERM)
IGNORED = signal.SIG_IGN


def check_commands(environ: Mapping[str, str]) -> Iterable[Finding]:
    """Whether Slurm's commands are there; the requeue of a job needs scontrol."""
    name = "Slurm commands"
    there = [program for program in ("sbatch", "srun", "scontrol") if is_there(program, environ)]
    missing = [program for program in ("sbatch", "srun", "scontrol") if program not in there]
    in_job = "SLURM_JOB_ID" in environ
    if not there and not in_job:
        yield skip(name, "there is no Slurm on this machine")
    elif in_job and "scontrol" in missing:
        yield warn(
            name,
            "scontrol is not on the PATH (a container?): a job whose time is over cannot be requeued",
            "make Slurm's commands visible in the container, or leave #SBATCH --requeue out and resume by hand",
        )
    elif missing:
        yield warn(name, f"{', '.join(missing)} not on the PATH", "load the site's slurm module: module load slurm")
    else:
        yield ok(name, ", ".join(there))


def is_notebook(environ: Mapping[str, str]) -> bool:
    """Whether a person works here in a notebook.

    >>> is_notebook({"SLURM_JOB_NAME": "sys/dashboard/sys/jupyter"}), is_notebook({"SLURM_JOB_NAME": "fit"})
    (True, False)
    """
    by_name = environ.get("SLURM_JOB_NAME", "").startswith("sys/dashboard/")
    return by_name or any(variable in environ for variable in NOTEBOOK_VARIABLES)


def check_job(environ: Mapping[str, str], settings: Settings | None, gpus: int) -> Iterable[Finding]:
    """What the job's environment says.

    Args:
        environ: The environment variables.
        settings: The fit's settings; None if they are not known.
        gpus: GPUs that PyTorch sees, for `trainer.devices: auto`.
    """
    number = environ.get("SLURM_JOB_ID")
    if number is None:
        yield skip("job", "this is not inside a Slurm job")
        return
    job_name = environ.get("SLURM_JOB_NAME", "")
    kind = "batch"
    if is_notebook(environ):
        kind = "notebook"
        yield _check_notebook(environ, job_name)
    elif job_name in TYPED:
        kind = "interactive"
        yield warn(
            "job name",
            f"{job_name!r}: Lightning takes the job for one in which a person types, and requeues nothing",
            "for a batch job: #SBATCH --job-name=bldml-fit",
        )
    else:
        yield ok("job name", job_name or "not known")
    if kind != "batch":
        return
    if "SLURM_STEP_ID" in environ:
        yield ok("srun", f"step {environ['SLURM_STEP_ID']} of job {number}")
    else:
        yield warn(
            "srun",
            "this process is not started by srun: the signal of --signal does not reach it, and nothing is requeued",
            "write srun before the command: srun python -m bldml fit …",
        )
    yield from check_shape(environ, settings, gpus)


def _check_notebook(environ: Mapping[str, str], job_name: str) -> Finding:
    name = "notebook"
    if "SLURM_NTASKS" not in environ:
        return ok(name, f"{job_name or 'Jupyter'}; Lightning does not take it for a batch job")
    return warn(
        name,
        f"{job_name or 'Jupyter'} with {environ['SLURM_NTASKS']} tasks: Lightning by itself takes it for a batch job; "
        "it can neither be signalled nor requeued",
        "train by sbatch; for a short try in the notebook's terminal: SLURM_JOB_NAME=interactive python -m bldml fit …",
    )


def check_shape(environ: Mapping[str, str], settings: Settings | None, gpus: int) -> Iterable[Finding]:
    """Tasks and nodes of the job against devices and nodes of the trainer; Lightning refuses what differs."""
    # Without srun there is one process, whatever the job asked for.
    worst: Status = "FAIL" if "SLURM_STEP_ID" in environ else "WARN"
    tasks, per_node = environ.get("SLURM_NTASKS", "1"), environ.get("SLURM_NTASKS_PER_NODE")
    if tasks != "1" and per_node is None:
        yield Finding(
            worst,
            "tasks",
            f"--ntasks={tasks} without --ntasks-per-node, which Lightning refuses below srun",
            "#SBATCH --ntasks-per-node=1     (instead of --ntasks; CPUs are asked for by --cpus-per-task)",
        )
        return
    if settings is None:
        yield skip("tasks")
        return
    devices = count_devices(settings, gpus)
    found = f"{per_node or 1} a node on {environ.get('SLURM_NNODES', '1')} nodes"
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
    """How many processes a node the trainer expects; None where it depends on a machine that is not this one."""
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
    """What Slurm itself says of this job: requeue, and what its script asks for."""
    number = environ.get("SLURM_JOB_ID")
    if number is None or is_notebook(environ) or environ.get("SLURM_JOB_NAME") in TYPED:
        return
    record = ask("scontrol", "show", "job", "-o", number, environ=environ)
    script = ask("scontrol", "write", "batch_script", number, "-", environ=environ)
    yield from read_job(record, script)


def read_job(record: Answer, script: Answer) -> Iterable[Finding]:
    """Requeue flag, signal and open mode of a job.

    Args:
        record: Of `scontrol show job -o`.
        script: Of `scontrol write batch_script`.
    """
    job = next(read_records(record.text), {}) if record.good else {}
    if not job:
        yield skip("job's requeue", f"Slurm does not tell: {record.problem or 'no such job'}")
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
                "not in the job's script; whether sbatch's command line had it is not visible",
                f"#SBATCH --{name}={wanted}",
            )


def check_signals(environ: Mapping[str, str]) -> Iterable[Finding]:
    """Whether the signals that end a job reach a process that was started as this one was."""
    if "SLURM_JOB_ID" not in environ:
        return
    held = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    blocked = [f"{s.name} blocked" for s in SIGNALS if s in held]
    # A fit installs its own handlers, also where these were ignored; a mask it leaves as it is.
    ignored = [f"{s.name} ignored at the start, which a fit undoes" for s in SIGNALS if signal.getsignal(s) is IGNORED]
    yield ok_or_warn(
        not blocked,
        "signals",
        ", ".join(blocked + ignored) or "SIGUSR1 and SIGTERM arrive",
        "whatever starts python holds them back: start it by srun alone",
        otherwise="FAIL",
    )
