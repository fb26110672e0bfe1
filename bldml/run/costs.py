"""What a run costs, as far as it was recorded: parameters, file size, speed, training time."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Costs:
    """Each is None where the run does not say.

    Args:
        parameters: Weights and biases of the network, > 0.
        checkpoint_bytes: Size of `best.ckpt`.
        images_per_second: Photographs of the evaluation by its time, reading included.
        device: What the evaluation was computed on, empty where unknown.
        training_seconds: Time in epochs, without pauses between interrupted parts.
    """

    parameters: int | None = None
    checkpoint_bytes: int | None = None
    images_per_second: float | None = None
    device: str = ""
    training_seconds: float | None = None


def duration(seconds: float) -> str:
    """Return a time as a reader says it.

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
