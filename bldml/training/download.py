"""One file from the network: by one process, resumed where it broke, verified before it is there."""

import os
import queue
import re
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import OpenerDirector, Request, build_opener

from tqdm import tqdm

from bldml.errors import TrainingError
from bldml.io.locks import Lock, Taken
from bldml.io.system import sha256_of

ANSWER_S = 10.0  # for looking up the name, all its addresses, the proxy, TLS and the first answer together
READ_S = 30.0  # of silence in the middle of a download
ATTEMPTS = 5
PAUSE_S = 1.0  # between attempts
CHUNK = 1 << 16  # bytes; what a connection that breaks can lose


class Broken(Exception):
    """A connection ended before the file did; another one may go on from there."""


def fetch(url: str, file: Path) -> bool:
    """Download a file unless it is there and whole. Of several processes one downloads and the others wait for it.

    At every moment the file is the old one or the whole new one. What has come of it lies beside it as `<name>.part`,
    and the next call goes on from there.

    Args:
        url: From where; the proxies of the environment are used.
        file: Where to.

    Returns:
        Whether it was downloaded now, by this process.

    Raises:
        TrainingError: It cannot be had or written; without a network this takes `ANSWER_S` seconds at most.
    """
    opener = build_opener()  # a new one, because urlopen keeps the proxies of its first call
    try:
        if file.is_file() and matches(file, file.name):
            return False
        probe(url, ANSWER_S)  # before the lock: all ranks of a job notice at once, not one after the other
        file.parent.mkdir(parents=True, exist_ok=True)
        with _one_process(file) as locked:
            if file.is_file() and matches(file, file.name):
                return False
            # Where nobody can be kept out, nobody else may write into the same part.
            own = "" if locked else f".{secrets.token_hex(4)}"
            part = file.with_name(f"{file.name}{own}.part")
            try:
                Download(opener, url, part).run(file.name)
                part.replace(file)
            finally:
                if own:
                    part.unlink(missing_ok=True)
        return True
    except OSError as error:
        raise TrainingError(
            f"Cannot write {file}: {error.strerror} ({error.filename or file.parent}). Check that you may write there "
            "and that there is space left, or choose another folder with TORCH_HOME.",
            "download-not-writable",
            path=file,
            reason=error.strerror,
        ) from error


@dataclass
class Download:
    """One file on its way: as many connections as it takes.

    Args:
        opener: Knows the proxies.
        url: From where.
        part: What has come so far, perhaps of an earlier process.
        etag: The server's name for the version that the part is of; empty if unknown.
    """

    opener: OpenerDirector
    url: str
    part: Path
    etag: str = ""

    def run(self, name: str) -> None:
        """Go on until the part is whole.

        Args:
            name: File name with the beginning of the SHA-256.

        Raises:
            TrainingError: It cannot be had; what has come stays for the next time, unless it is wrong.
            OSError: It cannot be written.
        """
        earlier = self.part.exists()
        if earlier and matches(self.part, name):
            return
        sys.stderr.write(f"Downloading {self.url}\n")
        reason = ""
        for attempt in range(ATTEMPTS):
            time.sleep(PAUSE_S if attempt else 0)
            try:
                self._go_on()
            except Broken as error:
                reason = str(error)
                continue
            if matches(self.part, name):
                return
            self.part.unlink()
            reason = f"what came is not the file: its SHA-256 does not begin with {digits(name)}. It was removed"
            if not earlier:
                raise TrainingError(
                    f"{self.url} cannot be downloaded: {reason}.", "download-refused", path=self.url, reason=reason
                )
            earlier = False  # the old bytes may have been the wrong ones: once more from nothing
        raise TrainingError(
            f"{self.url} cannot be downloaded: {reason}; {ATTEMPTS} attempts. The same command goes on from there.",
            "download-broken",
            path=self.url,
            reason=reason,
            found=ATTEMPTS,
        )

    def _go_on(self) -> None:
        """Receive the rest over one connection."""
        old = self.part.stat().st_size if self.part.exists() else 0
        with self._ask(old) as response:
            self.etag = response.headers.get("ETag", "")
            start = old if response.status == 206 else 0  # one that ignores Range sends everything again
            if start and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                self.part.unlink()
                raise Broken("the server sent another range than was asked for")
            length = response.length or 0  # of this answer, in bytes; 0 if unknown
            free = shutil.disk_usage(self.part.parent).free + old - start
            if length > free:
                raise TrainingError(
                    f"There is not enough space for {self.url}: {length / 1e6:.1f} MB are needed and "
                    f"{free / 1e6:.1f} MB free in {self.part.parent}. TORCH_HOME chooses another folder.",
                    "space-too-small",
                    path=self.part.parent,
                    found=free,
                    expected=length,
                )
            received = 0
            with (
                self.part.open("ab" if start else "wb") as output,
                tqdm(total=start + length or None, initial=start, unit="B", unit_scale=True, disable=None) as bar,
            ):
                for chunk in _chunks(response):
                    received += output.write(chunk)
                    bar.update(len(chunk))
                output.flush()
                os.fsync(output.fileno())
            if received < length:
                raise Broken(f"the connection ended after {received} of {length} bytes")

    def _ask(self, start: int) -> HTTPResponse:
        headers = {"Range": f"bytes={start}-"} if start else {}
        if start and self.etag and not self.etag.startswith("W/"):  # RFC 9110, 13.1.5: strong ones only
            headers["If-Range"] = self.etag
        try:
            response: HTTPResponse = self.opener.open(Request(self.url, headers=headers), timeout=READ_S)
        except HTTPError as error:
            error.close()
            reason = f"the answer is {error.code} {error.reason}"
            if error.code == 416:  # the part is longer than the file
                self.part.unlink(missing_ok=True)
            elif error.code < 500 and error.code not in (408, 429):
                raise TrainingError(
                    f"{self.url} cannot be downloaded: {reason}.", "download-refused", path=self.url, reason=reason
                ) from error
            raise Broken(reason) from error
        except (OSError, HTTPException) as error:
            raise Broken(_reason(error)) from error
        return response


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    """The content; only what goes wrong in the network is `Broken`, not what the receiver does with it."""
    try:
        while chunk := response.read(CHUNK):
            yield chunk
    except (OSError, HTTPException) as error:
        raise Broken(_reason(error)) from error


def probe(url: str, seconds: float) -> None:
    """Make sure that somebody answers, by the proxies of the environment too.

    Raises:
        TrainingError: Nobody does, within so many seconds.
    """
    answers: queue.Queue[Exception | None] = queue.Queue()

    def ask() -> None:
        try:
            build_opener().open(Request(url, method="HEAD"), timeout=seconds).close()
            answers.put(None)
        except HTTPError as error:  # an answer nevertheless; the download will say what is wrong
            error.close()
            answers.put(None)
        except Exception as error:
            answers.put(error)

    # In a thread that nobody waits for: a compute node drops packets instead of refusing them, a time limit holds for
    # each address of a host anew, and looking its name up has none at all.
    threading.Thread(target=ask, daemon=True).start()
    try:
        error = answers.get(timeout=seconds)
    except queue.Empty:
        error = TimeoutError(f"no answer within {seconds:g} seconds")
    if error is not None:
        raise TrainingError(
            f"{url} cannot be reached: {_reason(error)}.", "server-unreachable", path=url, reason=_reason(error)
        ) from error


@contextmanager
def _one_process(file: Path) -> Iterator[bool]:
    """Keep other processes from fetching the same file; False where the file system knows no locks."""
    path = file.with_name(f"{file.name}.lock")
    with _lock(path, file.name) as lock:
        yield lock.is_real
        # Not after an error: whoever still waits for this lock, or makes a new one, must find a whole file.
        with suppress(OSError):
            path.unlink()


def _lock(path: Path, name: str) -> Lock:
    try:
        return Lock(path)
    except Taken:
        sys.stderr.write(f"Another process downloads {name}; waiting for it.\n")
        return Lock(path, wait=None)


def digits(name: str) -> str:
    """What a file's SHA-256 begins with, by torchvision's custom of writing it behind the last dash of the name.

    Eight digits find damage; that nobody exchanged the file is the business of TLS.

    >>> digits("resnet50-11ad3fa6.pth"), digits("resnet50-small.pth")
    ('11ad3fa6', '')
    """
    found = re.fullmatch(r".*-([0-9a-f]{8,64})\.[^-]*", name)
    return found[1] if found else ""


def matches(file: Path, name: str) -> bool:
    """Whether the SHA-256 of a file begins with the `digits` of a name; True where that has none."""
    return sha256_of(file).startswith(digits(name))


def _reason(error: BaseException) -> str:
    return str(getattr(error, "reason", "") or error) or type(error).__name__
