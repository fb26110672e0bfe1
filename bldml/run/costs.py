"""The costs of a run, as far as they were recorded: parameters, file size, speed, training time."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Costs:
    """Costs of a run; None or empty where they are not recorded.

    Args:
        parameters: Weights and biases of the network, > 0.
        checkpoint_bytes: Size of `best.ckpt`.
        images_per_second: Photographs of the evaluation divided by its duration, which includes reading.
        device: Device of the evaluation.
        training_seconds: Time in epochs, without pauses between interrupted parts.
    """

    parameters: int | None = None
    checkpoint_bytes: int | None = None
    images_per_second: float | None = None
    device: str = ""
    training_seconds: float | None = None


def duration(seconds: float) -> str:
    """Return a duration as text, with two units at most.

    >>> duration(0.4), duration(75), duration(3 * 3600 + 125)
    ('< 1 s', '1 min 15 s', '3 h 2 min')
    """
    if seconds < 1:
        return "< 1 s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
