"""The command line of `tests.three_layers` whose `sweep` forks the processes of its runs instead of starting Python.

To be started as `Prepared`: what it forks has torch loaded like itself, and nothing of the sweep.
"""

import subprocess
import sys
from types import SimpleNamespace

from tests import prepared

if __name__ == "__main__":
    if sys.argv[1] == "sweep":
        prepared.fork_from_here()
    import tests.three_layers  # noqa: F401
    from bldml.cli import main
    from bldml.sweep import local

    streams = {name: getattr(subprocess, name) for name in ("DEVNULL", "STDOUT")}
    vars(local)["subprocess"] = SimpleNamespace(Popen=prepared.Prepared, **streams)
    sys.exit(main())
