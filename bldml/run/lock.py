"""The lock that keeps two processes from training in one run."""

import errno
import fcntl
import time
from typing import IO

from bldml.errors import RunError
from bldml.run.folder import RunFolder


def lock_run(run: RunFolder, *, patience: float = 0.0) -> IO[bytes] | None:
    """Keep other processes from training in this run as long as the file that is returned stays open.

    The system frees the lock when the process ends, however it ends. Threads and child processes do not hold it.

    Args:
        run: The run.
        patience: Seconds to wait for a process that is about to end, or for a file server that notices late.

    Returns:
        The open lock file; None where the file system knows no locks.

    Raises:
        RunError: Another process holds it.
    """
    end = time.monotonic() + patience
    try:
        file = (run.path / ".lock").open("ab")
    except OSError as error:
        raise RunError(f"Cannot write in {run.path}: {error.strerror}. Check that you may write there.") from error
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                file.close()
                return None
            if time.monotonic() >= end:
                file.close()
                raise RunError(
                    f"Another process is training in {run.path}. Two would mix their results: wait until it has ended, "
                    "or start a run of another --run_name."
                ) from error
        time.sleep(1)
