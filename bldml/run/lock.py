"""The lock that prevents two processes from training in one run."""

from bldml.errors import RunError
from bldml.io.locks import Lock, Taken
from bldml.run.folder import RunFolder


def lock_run(run: RunFolder, *, wait: float = 0.0) -> Lock:
    """Prevent other processes from training in this run until the lock is closed or the process ends.

    Args:
        run: The run.
        wait: Seconds to wait for a process that is about to end, or for a file server that notices late.

    Raises:
        RunError: Another process holds the lock, or the run folder is not writable.
    """
    try:
        return Lock(run.path / ".lock", wait=wait)
    except Taken as error:
        raise RunError(
            f"Another process is training in {run.path}. Two processes would mix their results. Wait until it has "
            "ended, or start another run with --run_name.",
            "run-in-use",
            path=run.path,
        ) from error
    except OSError as error:
        message = f"Cannot write in {run.path}: {error.strerror}. Check that you may write there."
        raise RunError(message, "run-not-writable", path=run.path, reason=error.strerror) from error
