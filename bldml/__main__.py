"""`python -m bldml` and the command `bldml`: signals wait from the first line on, until the command handles them."""

import atexit
import os
import signal
import threading
from typing import NoReturn


def run() -> NoReturn:
    """Run the command line of this process and end it with the command's exit code.

    Loading the command takes seconds on a cold file system. A signal that arrives meanwhile stays pending, so that it
    does not kill the process; `bldml.cli.main` lets it through.

    The process ends as Python ends one, and as `multiprocessing` ends its own: with the threads and the functions that
    wait for the end, but without freeing each object. Torch and Lightning come with a million of them, which takes a
    second and a half of a processor.
    """
    change_mask = getattr(signal, "pthread_sigmask", None)  # not on Windows; bldml.io.platform would first load more
    if change_mask is not None:
        names = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")
        change_mask(signal.SIG_BLOCK, [getattr(signal, name) for name in names])
    from bldml.cli import close_output, main

    code = main()
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    os._exit(close_output(code))


if __name__ == "__main__":
    run()
