"""Weights fetched through the command line and in a fit, from a real server on this machine."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bldml.training.backbones import BackboneName, build
from bldml.training.download import fetch
from tests.support import REPOSITORY, SMALL, Bldml, Outcome, mistake

CONTENT = bytes(range(256)) * 4096  # 1 MiB
WAIT_S = 120  # for another process on a busy machine
RESNET = ("prefetch", "--backbone=resnet50")
NAMES: list[BackboneName] = ["efficientnet_v2_s", "resnet50", "mobilenet_v3_large", "inception_v3"]


class Server(ThreadingHTTPServer):
    """Serves one content under any name, in whatever bad way a test asks for.

    Attributes:
        asked: The header Range (empty without one) of every GET, in order; `asked_if` its If-Range.
        cut: After how many bytes each of the next answers ends.
        shift: How many bytes behind the one that was asked for the next answer to a Range begins.
        hold: Send half of the content and wait for this event.
        heads: How many have asked whether somebody is there; the first download waits for `wanted` of them.
    """

    daemon_threads = False  # so that server_close waits for all of them

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.ranges, self.etag, self.status = True, "", 200
        self.asked: list[str] = []
        self.asked_if: list[str] = []
        self.cut: list[int] = []
        self.shift = 0
        self.hold: threading.Event | None = None
        self.heads, self.wanted = threading.Semaphore(0), 0

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def url(self, name: str = "net") -> str:
        return f"{self.root}/models/{name}-{hashlib.sha256(self.content).hexdigest()[:8]}.pth"

    def handle_error(self, *_: object) -> None:
        """A client that was killed is no error."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    timeout = WAIT_S

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.server.heads.release()
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        server, content = self.server, self.server.content
        wanted, condition = self.headers.get("Range", ""), self.headers.get("If-Range", "")
        server.asked.append(wanted)
        server.asked_if.append(condition)
        waiting_for, server.wanted = server.wanted, 0
        for _ in range(waiting_for):
            server.heads.acquire(timeout=WAIT_S)
        start = int(wanted.removeprefix("bytes=").removesuffix("-") or 0) if server.ranges else 0
        if condition not in ("", server.etag):
            start = 0
        if start:
            start, server.shift = start + server.shift, 0
        body, status = content[start:], server.status
        if start and status == 200:
            status = 206 if body else 416
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        if server.hold is not None:
            self.wfile.write(body[: len(body) // 2])
            server.hold.wait(WAIT_S)
            body = body[len(body) // 2 :]
        if server.cut:
            body = body[: server.cut.pop(0)]
        self.wfile.write(body)
        self.close_connection = True


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr("bldml.training.download.PAUSE_S", 0.0)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; torchvision's files lie on the server."""
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("bldml.training.weights.weights_url", lambda name: server.url(name) if name in NAMES else None)
    return tmp_path / "cache" / "hub" / "checkpoints"


def place(server: Server, folder: Path, name: str = "resnet50") -> Path:
    return folder / Path(server.url(name)).name


def left_in(folder: Path) -> set[Path]:
    """Files and parts. The lock of a download that failed stays: another process may be waiting for it."""
    return {file for file in folder.iterdir() if file.suffix != ".lock"}


def failures(outcome: Outcome) -> list[str]:
    """What is said of each file that could not be fetched."""
    assert outcome.mistake == "weights-not-fetched"
    return list(outcome.fields["found"])


def test_all(bldml: Bldml, server: Server, cache: Path) -> None:
    umask = os.umask(0o027)
    try:
        outcome = bldml("prefetch")
    finally:
        os.umask(umask)
    assert outcome.code == 0
    files = [place(server, cache, name) for name in NAMES]
    assert outcome.out.splitlines() == [
        f"{name}: {file} (1.0 MB), downloaded" for name, file in zip(NAMES, files, strict=True)
    ]
    assert sorted(cache.iterdir()) == sorted(files)  # no part and no lock is left
    assert all(file.read_bytes() == CONTENT and file.stat().st_mode & 0o777 == 0o640 for file in files)
    assert f"Downloading {server.url('resnet50')}" in outcome.err


def test_what_is_there_is_not_asked_for(bldml: Bldml, server: Server, cache: Path) -> None:
    assert bldml(*RESNET).code == 0
    file = place(server, cache)
    before, asked = file.stat(), len(server.asked)
    server.shutdown()
    outcome = bldml(*RESNET)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == f"resnet50: {file} (1.0 MB), already there\n"
    assert (file.stat().st_mtime_ns, len(server.asked)) == (before.st_mtime_ns, asked)


def test_damaged_file_is_fetched_anew(bldml: Bldml, server: Server, cache: Path) -> None:
    file = place(server, cache)
    cache.mkdir(parents=True)
    file.write_bytes(CONTENT[:-1])
    server.status = 404
    assert bldml(*RESNET).code == 1
    assert file.read_bytes() == CONTENT[:-1]  # nothing better is at hand yet
    server.status = 200
    assert ", downloaded" in bldml(*RESNET).out
    assert file.read_bytes() == CONTENT


def test_to_another_home(bldml: Bldml, server: Server, cache: Path) -> None:
    outcome = bldml("prefetch", "--backbone=resnet50", "--to", "my cache")
    home = Path.cwd() / "my cache"
    file = place(server, home / "hub" / "checkpoints")
    assert outcome.out == (f"resnet50: {file} (1.0 MB), downloaded\nFor the job script:\nexport TORCH_HOME='{home}'\n")
    assert file.read_bytes() == CONTENT
    assert not cache.exists()


@pytest.mark.parametrize(
    ("backbone", "code"), [("resnet", "backbone-unknown"), ("mobilenet_v2_x0_35", "weights-not-published")]
)
def test_backbone_without_weights(backbone: str, code: str, bldml: Bldml, server: Server, cache: Path) -> None:
    outcome = bldml("prefetch", "--backbone", backbone)
    assert (outcome.mistake, outcome.fields) == (code, {"found": backbone, "expected": NAMES})
    assert not server.asked


def test_failure_does_not_stop_the_others(
    bldml: Bldml, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = {name: server.url(name) for name in NAMES}
    urls["resnet50"] = f"{server.root}/resnet50-00000000.pth"
    monkeypatch.setattr("bldml.training.weights.weights_url", urls.get)
    outcome = bldml("prefetch")
    (failure,) = failures(outcome)
    assert failure.startswith("resnet50: ")
    assert "00000000" in failure
    assert outcome.out.count("downloaded") == 3
    assert left_in(cache) == {place(server, cache, name) for name in NAMES if name != "resnet50"}


BROKEN: dict[str, tuple[dict[str, object], list[str], list[str]]] = {
    "twice": (
        {"cut": [300_000, 200_000], "etag": '"first"'},
        ["", "bytes=300000-", "bytes=500000-"],
        ["", '"first"', '"first"'],
    ),
    "weak etag": ({"cut": [300_000], "etag": 'W/"weak"'}, ["", "bytes=300000-"], ["", ""]),
    "no etag": ({"cut": [300_000]}, ["", "bytes=300000-"], ["", ""]),
    "other range than was asked for": ({"cut": [300_000], "shift": 7}, ["", "bytes=300000-", ""], ["", "", ""]),
    "server that ignores ranges": ({"cut": [300_000], "ranges": False}, ["", "bytes=300000-"], ["", ""]),
}


@pytest.mark.parametrize("case", BROKEN)
def test_connection_that_breaks_is_resumed(case: str, bldml: Bldml, server: Server, cache: Path) -> None:
    settings, asked, asked_if = BROKEN[case]
    vars(server).update(settings)
    server.cut = [*server.cut]
    assert bldml(*RESNET).code == 0
    assert (server.asked, server.asked_if) == (asked, asked_if)
    assert place(server, cache).read_bytes() == CONTENT


def test_file_that_changed_in_between(
    bldml: Bldml, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server begins anew when the condition does not hold."""
    server.cut, server.etag = [300_000], '"first"'

    def change(_: float) -> None:
        if server.asked:
            server.etag = '"second"'

    monkeypatch.setattr("bldml.training.download.time.sleep", change)
    assert bldml(*RESNET).code == 0
    assert (server.asked, server.asked_if) == (["", "bytes=300000-"], ["", '"first"'])
    assert place(server, cache).read_bytes() == CONTENT


def test_next_command_goes_on(bldml: Bldml, server: Server, cache: Path) -> None:
    server.cut = [100_000, *[0] * 4]
    assert "after 0 of" in failures(bldml(*RESNET))[0]
    file = place(server, cache)
    part = file.with_name(f"{file.name}.part")
    assert not file.exists()
    assert part.read_bytes() == CONTENT[:100_000]
    server.asked.clear()
    assert bldml(*RESNET).code == 0
    assert server.asked == ["bytes=100000-"]
    assert file.read_bytes() == CONTENT
    assert list(cache.iterdir()) == [file]


def test_server_that_is_down(bldml: Bldml, server: Server, cache: Path) -> None:
    server.status = 503
    assert "503" in failures(bldml(*RESNET))[0]
    assert len(server.asked) == 5
    assert not left_in(cache)


PARTS = {
    "whole": (CONTENT, []),
    "too long": (CONTENT + b"!", ["bytes=1048577-", ""]),
    "as long but wrong": (b"!" + CONTENT[1:], ["bytes=1048576-", ""]),
    "wrong beginning": (b"!" * 1000, ["bytes=1000-", ""]),
}


@pytest.mark.parametrize("case", PARTS)
def test_part_that_an_earlier_process_left(case: str, bldml: Bldml, server: Server, cache: Path) -> None:
    content, asked = PARTS[case]
    file = place(server, cache)
    cache.mkdir(parents=True)
    file.with_name(f"{file.name}.part").write_bytes(content)
    assert bldml(*RESNET).code == 0
    assert server.asked == asked
    assert file.read_bytes() == CONTENT
    assert list(cache.iterdir()) == [file]


def test_wrong_content_is_not_kept(bldml: Bldml, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.url("resnet50")
    monkeypatch.setattr("bldml.training.weights.weights_url", lambda name: url)
    server.content = b"<html>Log in first</html>"
    (failure,) = failures(bldml(*RESNET))
    assert url in failure
    assert "SHA-256" in failure
    assert len(server.asked) == 1
    assert not left_in(cache)


def test_space_is_looked_for_first(bldml: Bldml, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = SimpleNamespace(free=len(CONTENT) - 1)
    monkeypatch.setattr("bldml.training.download.shutil.disk_usage", lambda folder: free)
    (failure,) = failures(bldml(*RESNET))
    assert "space" in failure
    assert str(cache) in failure
    assert not left_in(cache)
    free.free += 1
    assert bldml(*RESNET).code == 0


def test_folder_that_cannot_be_made(bldml: Bldml, server: Server, cache: Path) -> None:
    Path("taken").write_text("a file")
    outcome = bldml("prefetch", "--backbone=resnet50", "--to=taken")
    (failure,) = failures(outcome)
    assert str(place(server, Path.cwd() / "taken/hub/checkpoints")) in failure
    assert "export" not in outcome.out


def test_without_locks(bldml: Bldml, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else's part is touched then, because its owner may still be writing."""

    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.lockf", refuse)
    file = place(server, cache)
    part = file.with_name(f"{file.name}.part")
    cache.mkdir(parents=True)
    part.write_bytes(CONTENT[:1000])
    server.cut = [0] * 5
    assert bldml(*RESNET).code == 1
    assert left_in(cache) == {part}
    assert bldml(*RESNET).code == 0
    assert file.read_bytes() == CONTENT
    assert part.read_bytes() == CONTENT[:1000]


def start_fetching(url: str, file: Path) -> subprocess.Popen[str]:
    """Another process that fetches a file; without torch, which takes seconds to import."""
    script = (
        "import sys, pathlib\nfrom bldml.training.download import fetch\n"
        "print('downloaded' if fetch(sys.argv[1], pathlib.Path(sys.argv[2])) else 'already there')\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script, url, str(file)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY,
    )  # fmt: skip


def test_one_of_several_processes_downloads(server: Server, tmp_path: Path) -> None:
    server.wanted = 3  # nobody gets anything before all three are at the door
    file = place(server, tmp_path / "checkpoints")
    processes = [start_fetching(server.url("resnet50"), file) for _ in range(3)]
    try:
        outputs = [process.communicate(timeout=WAIT_S) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert sorted(out for out, _ in outputs) == ["already there\n", "already there\n", "downloaded\n"]
    assert len(server.asked) == 1
    assert file.read_bytes() == CONTENT
    assert list(file.parent.iterdir()) == [file]


def test_killed_in_the_middle(server: Server, tmp_path: Path) -> None:
    file = place(server, tmp_path / "checkpoints")
    part = file.with_name(f"{file.name}.part")
    server.hold = threading.Event()
    process = start_fetching(server.url("resnet50"), file)
    try:
        end = time.monotonic() + WAIT_S
        while not (part.exists() and part.stat().st_size) and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        server.hold.set()
        server.hold = None
    assert not file.exists()
    have = part.stat().st_size
    assert 0 < have < len(CONTENT)
    assert fetch(server.url("resnet50"), file)  # the lock went with its holder
    assert server.asked == ["", f"bytes={have}-"]
    assert file.read_bytes() == CONTENT


def test_nobody_there(bldml: Bldml, server: Server, cache: Path) -> None:
    server.shutdown()
    server.socket.close()
    outcome = bldml("prefetch")
    assert ["refused" in failure for failure in failures(outcome)] == [True] * 4
    assert outcome.out == ""
    assert not cache.exists()


def test_fetch_says_what_is_wrong(server: Server, tmp_path: Path) -> None:
    server.status = 404
    with mistake("download-refused", path=server.url(), reason="the server answered 404 Not Found"):
        fetch(server.url(), tmp_path / "net.pth")
    assert len(server.asked) == 1
    with mistake("server-unreachable", path="nowhere://x"):
        fetch("nowhere://x", tmp_path / "net.pth")


def test_fit_fetches_once(
    bldml: Bldml, server: Server, cache: Path, leaves: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The small backbone, as if torchvision had weights for it."""
    torch.save(build("mobilenet_v2_x0_35").state_dict(), tmp_path / "net.pth")
    server.content = (tmp_path / "net.pth").read_bytes()
    monkeypatch.setattr("bldml.training.weights.weights_url", server.url)
    fit = ("fit", *SMALL, "--model.weights=imagenet", "--data.root", leaves, "--trainer.fast_dev_run=true")
    for _ in range(2):
        assert bldml(*fit).code == 0
        assert len(server.asked) == 1
    file = place(server, cache, "mobilenet_v2_x0_35")
    assert list(cache.iterdir()) == [file]
    file.write_bytes(server.content[:-1])
    outcome = bldml(*fit)
    assert (outcome.mistake, outcome.fields["path"]) == ("weights-damaged", file)
    assert "python -m bldml prefetch --backbone mobilenet_v2_x0_35" in outcome.err
