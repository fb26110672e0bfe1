"""The progress files of a survey: a damaged line is noticed, whatever its damage is."""

import json
import random
from contextlib import ExitStack
from pathlib import Path

from bldml.survey.progress import CHECK, Record, SurveyProgress, WorkShard


def test_a_flipped_bit_in_a_line_is_a_line_less(tmp_path: Path) -> None:
    progress = SurveyProgress(tmp_path, {})
    whole = {f"tree {n}/leaf.jpg": Record((70_000 + n, 10**18 + n), n / 7, "positive", "", True) for n in range(5)} | {
        "ü.jpg": Record((7, 8), None, "", "it is cut off", None)
    }
    path = tmp_path / "progress.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in _lines(whole)))
    assert progress.read() == whole  # as an older version wrote it
    path.unlink()
    with ExitStack() as locks:
        progress.begin(WorkShard(), locks)
        for name, record in whole.items():
            progress.add(name, record)
    content = path.read_bytes()
    assert content.count(CHECK.encode()) == 7
    changed = 0
    for bit in random.Random(1).sample(range(8 * content.index(b"\n"), 8 * len(content)), 2000):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        found = progress.read()
        assert found.items() <= whole.items(), content[bit // 8 - 20 : bit // 8 + 20]
        changed += found != whole
    assert changed > 1000


def _lines(records: dict[str, Record]) -> list[dict[str, object]]:
    found = []
    for name, record in records.items():
        fields = {key: value for key, value in record._asdict().items() if value not in (None, "")}
        found.append({"path": name, **fields})
    return found
