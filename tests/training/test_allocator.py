"""The C library's allocator, in a process of its own because it cannot be told to forget."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, resource, sys
import torch
from bldml.training.process import keep_freed_memory
told = keep_freed_memory() if sys.argv[1] == "kept" else None
def use():
    for _ in range(20):
        torch.ones(20_000_000)  # 80 MB
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
use()
print(json.dumps([told, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's own")
def test_freed_memory_is_used_again() -> None:
    """Counted in pages that the system had to make."""
    faults = {}
    for way in ("stock", "kept"):
        done = subprocess.run([sys.executable, "-c", PROGRAM, way], capture_output=True, text=True, check=True)
        told, faults[way] = json.loads(done.stdout)
        assert told in (None, True)
    assert faults["kept"] < faults["stock"] / 10
