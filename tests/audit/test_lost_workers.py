"""A process of an audit that is killed, as when memory runs out: one true sentence, and what was done is kept."""

import multiprocessing
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from bldml.audit.reading import FILES_PER_WORKER
from tests.support import ALONE, Bldml

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows has no such signals")


def kill_a_worker(stored: Path, others: set[int | None]) -> None:
    """Kill a process of the audit once the first photographs are stored."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        workers = [process for process in multiprocessing.active_children() if process.pid not in others]
        if workers and stored.exists() and stored.read_bytes().count(b"\n") > 1:
            os.kill(workers[0].pid or 0, signal.SIGKILL)
            return
        time.sleep(0.001)


def test_a_killed_process(tmp_path: Path, bldml: Bldml) -> None:
    root, count = tmp_path / "photographs", 2 * FILES_PER_WORKER + 64
    for number in range(count):
        path = root / ("BLD", "No_BLD")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((64, 64 + number % 7), 60).convert("RGB").save(path)
    stored = Path("out/examined.jsonl").absolute()
    others = {process.pid for process in multiprocessing.active_children()}
    killer = threading.Thread(target=kill_a_worker, args=(stored, others))
    killer.start()
    outcome = bldml("audit", root, *ALONE, "--workers=2", "--output=out")
    killer.join()
    assert outcome.mistake == "worker-killed", outcome.err
    assert outcome.code == 2
    assert outcome.fields["found"] == -signal.SIGKILL
    assert "A worker process was killed (signal 9). The usual cause is memory" in outcome.err
    assert "Run the same command again to resume." in outcome.err
    assert "Traceback" not in outcome.err
    done = stored.read_bytes().count(b"\n") - 1
    assert 0 < done < count
    assert bldml("audit", root, *ALONE, "--workers=1", "--output=out").code in (0, 1)
    resumed = Path("out/audit.csv").read_text()
    shutil.rmtree("out")
    assert bldml("audit", root, *ALONE, "--workers=1", "--output=out").code in (0, 1)
    assert Path("out/audit.csv").read_text() == resumed
