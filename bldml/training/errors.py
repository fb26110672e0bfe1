"""The user's own mistakes about training."""


class TrainingError(Exception):
    """Backbone, weights or schedule cannot be as asked for; the message says what to do."""
