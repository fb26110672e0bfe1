"""`python -m bldml` and the command `bldml`: signals wait from the first line on, until the command handles them."""

import signal
import sys


def run() -> int:
    """Run the command line of this process and return its exit code.

    Loading the command takes seconds on a cold file system. A signal that arrives meanwhile stays pending, so that it
    does not kill the process; `bldml.cli.main` lets it through.
    """
    change_mask = getattr(signal, "pthread_sigmask", None)  # not on Windows; bldml.io.platform would first load more
    if change_mask is not None:
        names = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")
        change_mask(signal.SIG_BLOCK, [getattr(signal, name) for name in names])
    from bldml.cli import main

    return main()


if __name__ == "__main__":
    sys.exit(run())
