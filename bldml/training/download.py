"""Download of a file: by one process, resumable, verified before it gets its final name."""

import os
import queue
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, build_opener

from tqdm import tqdm

from bldml.errors import TrainingError
from bldml.io.locks import Lock, Taken
from bldml.io.safe_points import safe_point
from bldml.io.screen import complain
from bldml.io.system import sha256_of

ANSWER_S = 10.0  # for name resolution, all addresses, the proxy, TLS and the first response together
READ_S = 30.0  # without data during a download
ATTEMPTS = 5
PAUSE_S = 1.0  # between attempts
CHUNK = 1 << 16  # bytes; at most this much is lost if a connection breaks


class Broken(Exception):
    """The connection ended before the file was complete; another connection may resume the download."""


def fetch(url: str, file: Path) -> bool:
    """Download a file unless it exists and is complete; return whether this call downloaded it.

    Of several processes one downloads and the others wait. At every moment the file is the old one or the whole new
    one. A partial download is kept beside it as `<name>.part`, and the next call resumes it.

    Args:
        url: URL of the file; the proxies of the environment are used.
        file: Path of the downloaded file; its name ends with the first digits of the SHA-256.

    Raises:
        TrainingError: The file cannot be downloaded or written; without a network after at most `ANSWER_S` seconds.
    """
    try:
        if file.is_file() and matches(file):
            return False
        probe(url, ANSWER_S)  # before the lock, so that all ranks of a job fail together, not one after the other
        file.parent.mkdir(parents=True, exist_ok=True)
        with _one_process(file) as locked:
            if file.is_file() and matches(file):
                return False
            # Without a lock, each process writes a partial file of its own.
            own = "" if locked else f".{secrets.token_hex(4)}"
            part = file.with_name(f"{file.name}{own}.part")
            try:
                _Download(url, part).run(file.name)
                part.replace(file)
            finally:
                if own:
                    part.unlink(missing_ok=True)
        return True
    except OSError as error:
        message = f"Cannot write {file}: {error.strerror} ({error.filename or file.parent}). Check that you may write "
        message += "there and that there is space left, or choose another folder with TORCH_HOME."
        raise TrainingError(message, "download-not-writable", path=file, reason=error.strerror) from error


@dataclass
class _Download:
    """Download of one file, over several connections if needed."""

    url: str
    part: Path  # the partial file, perhaps from a previous process
    etag: str = ""  # the server's identifier of the partial file's version; empty if unknown

    def run(self, name: str) -> None:
        """Download until the partial file has the SHA-256 in `name`; if that fails it stays, unless it is wrong."""
        existed = self.part.exists()
        if existed and matches(self.part, name):
            return
        complain(f"Downloading {self.url}\n")
        reason = ""
        for attempt in range(ATTEMPTS):
            time.sleep(PAUSE_S if attempt else 0)
            try:
                self._receive()
            except Broken as error:
                reason = str(error)
                continue
            if matches(self.part, name):
                return
            self.part.unlink()
            reason = f"the SHA-256 of the downloaded file does not begin with {digits(name)}. The file was removed"
            if not existed:
                raise self._refused(reason)
            existed = False  # the old bytes may have been wrong: once more from the beginning
        message = f"{self.url} cannot be downloaded: {reason}; {ATTEMPTS} attempts. "
        message += "Run the same command again to resume it."
        raise TrainingError(message, "download-broken", path=self.url, reason=reason, found=ATTEMPTS)

    def _receive(self) -> None:
        """Receive the rest over one connection."""
        old = self.part.stat().st_size if self.part.exists() else 0
        with self._ask(old) as response:
            self.etag = response.headers.get("ETag", "")
            start = old if response.status == 206 else 0  # one that ignores Range sends everything again
            if start and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                self.part.unlink()
                raise Broken("the server sent another range than requested")
            length = response.length or 0  # of this response, in bytes; 0 if unknown
            free = shutil.disk_usage(self.part.parent).free + old - start
            if length > free:
                message = f"There is not enough space for {self.url}: {length / 1e6:.1f} MB are needed and "
                message += f"{free / 1e6:.1f} MB free in {self.part.parent}. Set TORCH_HOME to another folder."
                raise TrainingError(message, "space-too-small", path=self.part.parent, found=free, expected=length)
            received = 0
            with (
                self.part.open("ab" if start else "wb") as output,
                tqdm(total=start + length or None, initial=start, unit="B", unit_scale=True, disable=None) as bar,
            ):
                for chunk in _chunks(response):
                    received += output.write(chunk)
                    bar.update(len(chunk))
                    output.flush()
                    safe_point(kept=1)
                os.fsync(output.fileno())
            if received < length:
                raise Broken(f"the connection ended after {received} of {length} bytes")

    def _ask(self, start: int) -> HTTPResponse:
        headers = {"Range": f"bytes={start}-"} if start else {}
        if start and self.etag and not self.etag.startswith("W/"):  # RFC 9110, 13.1.5: strong ones only
            headers["If-Range"] = self.etag
        try:
            # A new opener, because urlopen reuses the proxies of its first call.
            response: HTTPResponse = build_opener().open(Request(self.url, headers=headers), timeout=READ_S)
        except HTTPError as error:
            error.close()
            reason = f"the server answered {error.code} {error.reason}"
            if error.code == 416:  # the partial file is longer than the file
                self.part.unlink(missing_ok=True)
            elif error.code < 500 and error.code not in (408, 429):
                raise self._refused(reason) from error
            raise Broken(reason) from error
        except (OSError, HTTPException) as error:
            raise Broken(_reason(error)) from error
        return response

    def _refused(self, reason: str) -> TrainingError:
        message = f"{self.url} cannot be downloaded: {reason}."
        return TrainingError(message, "download-refused", path=self.url, reason=reason)


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    """Yield the content; only network errors become `Broken`, not errors of the receiver."""
    try:
        while chunk := response.read(CHUNK):
            yield chunk
    except (OSError, HTTPException) as error:
        raise Broken(_reason(error)) from error


def probe(url: str, seconds: float) -> None:
    """Raise a TrainingError unless a server answers within this many seconds, through the environment's proxies."""
    answers: queue.Queue[Exception | None] = queue.Queue()

    def ask() -> None:
        try:
            build_opener().open(Request(url, method="HEAD"), timeout=seconds).close()
            answers.put(None)
        except Exception as error:
            answers.put(error)

    # In a thread that is not joined: a compute node drops packets instead of refusing them, a timeout applies to each
    # address of a host separately, and name resolution has none.
    threading.Thread(target=ask, daemon=True).start()
    try:
        error = answers.get(timeout=seconds)
    except queue.Empty:
        error = TimeoutError(f"no answer within {seconds:g} seconds")
    if isinstance(error, HTTPError):
        error.close()  # an answer nevertheless; the download will report the error
    elif error is not None:
        message, reason = f"{url} cannot be reached: {_reason(error)}.", _reason(error)
        raise TrainingError(message, "server-unreachable", path=url, reason=reason) from error


@contextmanager
def _one_process(file: Path) -> Iterator[bool]:
    """Prevent other processes from downloading the same file; yield False if the file system has no locks."""
    path = file.with_name(f"{file.name}.lock")
    try:
        lock = Lock(path)
    except Taken:
        complain(f"Another process is downloading {file.name}; waiting.\n")
        lock = Lock(path, wait=None)
    with lock:
        yield lock.is_real
        # Not after an error: a process that still waits for this lock, or creates a new one, must find a whole file.
        with suppress(OSError):
            path.unlink()


def digits(name: str) -> str:
    """Return the first digits of a file's SHA-256, which torchvision writes after the last dash of the name.

    Eight digits detect damage; TLS protects against a replaced file.

    >>> digits("resnet50-11ad3fa6.pth"), digits("resnet50-small.pth")
    ('11ad3fa6', '')
    """
    found = re.fullmatch(r".*-([0-9a-f]{8,64})\.[^-]*", name)
    return found[1] if found else ""


def matches(file: Path, name: str = "") -> bool:
    """Return whether the SHA-256 of a file begins with the `digits` of a name, its own by default; True without any."""
    return sha256_of(file).startswith(digits(name or file.name))


def _reason(error: BaseException) -> str:
    return str(getattr(error, "reason", "") or error) or type(error).__name__
