"""What strangers may write: hostile values, documents and tables with a few changes, bytes with a few changes."""

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

NASTY = (
    *(
        "",
        " ",
        "null",
        "~",
        "true",
        "No",
        "1e3",
        "-1",
        "0",
        "nan",
        "inf",
        "-.inf",
        "1e999",
        "0x1F",
        "1_000",
        "2026-01-01",
    ),
    *(
        "9" * 200,
        "9" * 5000,
        "1e" + "9" * 300,
        "\0",
        "a\0b",
        "\x1b[2J",
        "\x1b]0;x\x07",
        "\u202egpj.exe",
        "two\nlines",
        "\r",
    ),
    *(
        "=1+1",
        "'=1+1",
        "../../etc/passwd",
        "/proc/self/mem",
        "s3://bucket/x",
        "file:///etc",
        "a::b",
        "\ufeff",
        "\u2028",
    ),
    *(
        "[" * 60,
        "{" * 60,
        "[" * 5000,
        "!!python/object:os.system x",
        "*a",
        "&a [*a]",
        "${HOME}",
        "{epoch}",
        "%s%n",
        "x" * 5000,
    ),
    *("💥", "e\u0301", "ﬁ", "ß", "İ", "-", "--help", ".", "..", "CON", "a/b", "a\\b", '"', "'", "#", "<script>"),
)
texts = st.sampled_from(NASTY) | st.text(max_size=12)
numbers = st.integers() | st.floats() | st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**400, 1e308, 5e-324])
plain = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=6,
)


def _paths(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield above
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _paths(item, (*above, key))


@st.composite
def changed(draw: st.DrawFn, document: Any, values: st.SearchStrategy[Any] = plain) -> Any:
    """A document of lists and mappings with one to three changes: a value replaced, removed, renamed or added."""
    root = [copy.deepcopy(document)]
    for _ in range(draw(st.integers(1, 3))):
        *above, key = draw(st.sampled_from([path for path in _paths(root) if path]))
        parent: Any = root
        for one in above:
            parent = parent[one]
        what = draw(st.sampled_from(["replace", "replace", "remove", "rename", "add", "wrap", "repeat"]))
        if what == "remove" and above:
            del parent[key]
        elif what == "rename" and isinstance(parent, dict):
            parent[draw(texts)] = parent.pop(key)
        elif what == "add" and isinstance(parent[key], dict):
            parent[key][draw(texts)] = draw(values)
        elif what == "wrap":
            parent[key] = [parent[key]]
        elif what == "repeat" and isinstance(parent[key], list):
            parent[key] = parent[key] * draw(st.sampled_from([2, 1000]))
        else:
            parent[key] = draw(values)
    return root[0]


@st.composite
def bent(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes with one to four changes: a bit flipped, a part cut out, doubled, zeroed or replaced, the end cut off."""
    for _ in range(draw(st.integers(1, 4))):
        if not content:
            break
        start = draw(st.integers(0, len(content) - 1))
        end = min(len(content), start + draw(st.sampled_from([1, 2, 4, 8, 64, 1000])))
        middle = {
            "flip": bytes([content[start] ^ 1 << draw(st.integers(0, 7))]) + content[start + 1 : end],
            "cut": b"",
            "double": content[start:end] * 2,
            "zero": bytes(end - start),
            "ones": b"\xff" * (end - start),
            "other": draw(st.binary(max_size=16)),
        }[draw(st.sampled_from(["flip", "flip", "cut", "double", "zero", "ones", "other"]))]
        content = content[:start] + middle + content[end:]
        if draw(st.integers(0, 9)) == 0:
            content = content[: draw(st.integers(0, len(content)))]
    return content


@st.composite
def table(draw: st.DrawFn, content: str) -> bytes:
    """A CSV with one to three changes of cells, rows or columns, or of its bytes."""
    rows = [line.split(",") for line in content.splitlines()]
    for _ in range(draw(st.integers(1, 3))):
        number = draw(st.integers(0, len(rows) - 1))
        row = rows[number]
        cell = draw(st.integers(0, max(0, len(row) - 1)))
        what = draw(st.sampled_from(["cell", "cell", "header", "shorter", "longer", "twice", "gone", "empty"]))
        if what == "cell" and row:
            row[cell] = draw(texts | numbers.map(repr_of))
        elif what == "header":
            rows[0][min(cell, len(rows[0]) - 1) if rows[0] else 0 :] = [draw(texts)]
        elif what == "shorter":
            rows[number] = row[:cell]
        elif what == "longer":
            rows[number] = [*row, draw(texts)]
        elif what == "twice":
            rows.append(row)
        elif what == "gone" and len(rows) > 1:
            del rows[number]
        elif what == "empty":
            rows = rows[:1]
    joint = draw(st.sampled_from([",", ",", ",", ";", "\t"]))
    end = draw(st.sampled_from(["\n", "\n", "\r\n", "\r"]))
    text = draw(st.sampled_from(["", "", "\ufeff"])) + end.join(map(joint.join, rows)) + end
    return text.encode(draw(st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-16"])), "surrogatepass")


def repr_of(number: float) -> str:
    """Return a number as text, also one of more digits than Python shows."""
    return hex(number) if isinstance(number, int) else repr(number)
