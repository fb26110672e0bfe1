"""The user's own mistakes: each message says what was given, what was found and what to do.

The exit code is 2 if what was typed is wrong (an option, an argument, a configuration), 1 if what was found is wrong.
"""

from typing import Any


class BldmlError(Exception):
    """A mistake that its user can put right; the command line shows the message alone. Anything else is a bug.

    Args:
        message: What was given, what was found and what to do.
        code: What kind of mistake it is, in kebab-case; it stays when the message is reworded.
        fields: The values that the message names.

    Attributes:
        exit_code: With what the command line ends.

    It can be pickled with everything, so it comes out of another process as it was raised there.

    >>> error = DatasetError("There is no class BLT.", "class-unknown", found="BLT")
    >>> str(error), error.code, error.fields, error.exit_code
    ('There is no class BLT.', 'class-unknown', {'found': 'BLT'}, 1)
    """

    exit_code = 1
    code = "error"

    def __init__(self, message: str, code: str | None = None, /, **fields: Any) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code
        self.fields = fields


class ConfigError(BldmlError):
    """The command line or a configuration file asks for something that cannot be."""

    exit_code = 2
    code = "config-invalid"


class UsageError(BldmlError):
    """A command cannot be carried out as it was typed."""

    exit_code = 2
    code = "usage-invalid"


class DatasetError(BldmlError):
    """The photographs cannot be used as they are."""

    code = "dataset-invalid"


class RunError(BldmlError):
    """Something about a run or its files is not as it must be."""

    code = "run-invalid"


class MachineError(RunError):
    """A disk, a file server, memory or another process failed, through no mistake in what was asked for.

    What was finished is kept: the command can be repeated, and a training resumed.
    """

    code = "machine-failed"


class CheckpointError(BldmlError):
    """A checkpoint is missing, damaged, or not one of bldml."""

    code = "checkpoint-invalid"


class TrainingError(BldmlError):
    """Backbone, weights or schedule cannot be as asked for."""

    code = "training-invalid"
