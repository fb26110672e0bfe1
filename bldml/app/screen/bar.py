"""The progress bar in bldml's words, messages that do not tear it, and the log file of a run."""

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from bldml.dataset.files import show_path
from bldml.io.screen import complain

# Its children write all messages of bldml and Lightning.
LOGGER = "lightning.pytorch"


class _Line(Tqdm):
    """A bar without the number of Lightning's data loader, of which a split has one."""

    def set_description(self, desc: str | None = None, refresh: bool | None = True) -> None:
        super().set_description(re.sub(r" DataLoader \d+$", "", desc or ""), refresh)


class LeafProgressBar(TQDMProgressBar):
    """Lightning's bar on stderr, where the messages are. It disappears when its work is done; messages stay.

    Attributes:
        words: What an evaluation does, for its bar.
    """

    words = "Evaluating"

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[Tqdm] = []

    def on_exception(self, *_: Any) -> None:
        """Remove the bars that are open, as an interruption leaves them."""
        while self._lines:
            self._lines.pop().close()

    @property
    def validation_description(self) -> str:
        """Words for the bar of a validation, within a fit or alone."""
        return "Validation" if self.trainer.state.fn == "fit" else self.words

    @property
    def test_description(self) -> str:
        """Words for the bar of a test."""
        return self.words

    predict_description = test_description

    def init_train_tqdm(self) -> Tqdm:
        """Return the bar of an epoch."""
        return self._line(self.train_description)

    def init_validation_tqdm(self) -> Tqdm:
        """Return the bar of a validation; within a fit it is below that of the epoch."""
        return self._line(self.validation_description, int(self.trainer.state.fn == "fit"))

    def init_test_tqdm(self) -> Tqdm:
        """Return the bar of a test."""
        return self._line(self.words)

    init_predict_tqdm = init_test_tqdm

    def _line(self, words: str, position: int = 0) -> Tqdm:
        line = _Line(
            desc=words, position=position, disable=self.is_disabled, leave=False, dynamic_ncols=True, file=sys.stderr,
            smoothing=0, bar_format=self.BAR_FORMAT,
        )  # fmt: skip
        self._lines = [*(line for line in self._lines if not line.disable), line]
        return line


class ClockFormatter(logging.Formatter):
    """Begin each line of a message with date and time."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record."""
        clock = self.formatTime(record, "%Y-%m-%d %H:%M:%S")
        return "\n".join(f"{clock} {line}".rstrip() for line in super().format(record).split("\n"))


@contextmanager
def messages_above_bars(*, clock: bool = False) -> Iterator[None]:
    """Write messages above any progress bar, instead of into its line; `clock` begins their lines with the time."""
    with ExitStack() as stack:
        # Without handlers of its own, the logger leaves its messages to the program that uses bldml.
        handlers = logging.getLogger(LOGGER).handlers
        for handler in handlers if clock else ():
            stack.callback(handler.setFormatter, handler.formatter)
            handler.setFormatter(ClockFormatter())
        if handlers:
            stack.enter_context(logging_redirect_tqdm([logging.getLogger(LOGGER)]))
        yield


class LogFile(logging.FileHandler):
    """A file of messages. Where it cannot be written, as on a full disk, they are only on the screen, which is said."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Say it once, where logging would print a traceback for each message."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        self.addFilter(lambda _: False)
        text = f"{show_path(self.baseFilename)} cannot be written: {error.strerror}. Messages are only on the screen."
        complain(f"Warning: {text}\n")

    def close(self) -> None:
        """Close it, although the last messages may not have been written."""
        with suppress(OSError):
            super().close()


class RunLog(MemoryHandler):
    """Keep messages until the folder of the run exists, and append them and all later ones to its log.txt."""

    def __init__(self) -> None:
        super().__init__(capacity=10_000, flushOnClose=False)

    def __enter__(self) -> "RunLog":
        """Receive messages."""
        logging.getLogger(LOGGER).addHandler(self)
        return self

    def __exit__(self, *_: Any) -> None:
        """Close the file; without one, the messages were only on the screen."""
        logging.getLogger(LOGGER).removeHandler(self)
        if self.target is not None:
            self.target.close()
        self.close()

    def write_to(self, path: Path) -> None:
        """Append what was said so far, and every message from now on."""
        target = LogFile(path, "a", "utf-8")
        target.setFormatter(ClockFormatter())
        self.setTarget(target)
        self.flush()
        self.capacity = 0
