"""Signs in the sizes of unreadable files that a copy was interrupted."""

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

LEAST = 3  # files with the same sign
BLOCKS = (1 << 20, 1 << 16, 1 << 12)  # bytes; by chance one file in 4,096 ends at the smallest


def describe_interruption(unreadable: Iterable[Path]) -> str:
    """Return a sentence if at least half of unreadable files have the same size or end at a block; empty if not."""
    sizes = []
    for path in unreadable:
        with suppress(OSError):
            sizes.append(path.stat().st_size)
    if not sizes:
        return ""
    (size, equal), least = Counter(sizes).most_common(1)[0], max(LEAST, (len(sizes) + 1) // 2)
    likely = "Probably a copy was interrupted: copy the folder again from the original."
    if equal >= least:
        what = "are empty" if size == 0 else f"have exactly the same size, {size:,} bytes"
        return f"{equal:,} of these files {what}. {likely}"
    for block in BLOCKS:
        if (at_end := sum(size > 0 and size % block == 0 for size in sizes)) >= least:
            return f"{at_end:,} of these files end at a multiple of {block:,} bytes, as parts of a copy do. {likely}"
    return ""
