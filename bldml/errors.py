"""The user's own mistakes: each message says what was given, what was found and what to do."""


class ConfigError(Exception):
    """The command line or a configuration file asks for something that cannot be."""


class DatasetError(Exception):
    """The photographs cannot be used as they are."""


class RunError(Exception):
    """Something about a run or its files is not as it must be."""


class CheckpointError(Exception):
    """A checkpoint is missing, damaged, or not one of bldml."""


class TrainingError(Exception):
    """Backbone, weights or schedule cannot be as asked for."""


class UsageError(ValueError):
    """A command that cannot be carried out as it was typed, where exit code 1 has a meaning of its own."""
