"""Read CSV tables as people, spreadsheets and programs write them, where only one reading is possible, and say so."""

import csv
import io
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from bldml.dataset.files import show_path
from bldml.dataset.images import HEIF_SUFFIXES, PHOTO_SUFFIXES
from bldml.errors import DatasetError
from bldml.io.documents import LARGEST_TABLE

# Names under which others write a column, in small letters with _ between words.
SYNONYMS = {
    "path": (
        *("paths", "file", "files", "filename", "filenames", "file_name", "filepath", "file_path", "image", "images"),
        *("image_path", "image_name", "image_file", "imagepath", "img", "img_path", "photo", "photograph", "picture"),
        *("image_id", "img_name", "photo_name", "photo_id"),
        *(
            "datei",
            "dateiname",
            "pfad",
            "bild",
            "foto",
            "fichier",
            "nom_du_fichier",
            "chemin",
            "archivo",
            "ruta",
            "imagen",
        ),
        *(
            "arquivo",
            "caminho",
            "imagem",
            "immagine",
            "percorso",
            "bestand",
            "bestandsnaam",
            "plik",
            "文件",
            "文件名",
            "图片",
        ),
    ),
    "label": (
        *("labels", "class", "classes", "class_name", "classname", "target", "category", "diagnosis", "y", "disease"),
        *(
            "klasse",
            "diagnose",
            "classe",
            "étiquette",
            "diagnostic",
            "clase",
            "etiqueta",
            "rótulo",
            "etichetta",
            "klasa",
        ),
        *("标签", "类别"),
    ),
    "split": (
        *("splits", "set", "subset", "partition", "data_split", "phase", "split_name", "split_set"),
        *(
            "aufteilung",
            "teilmenge",
            "ensemble",
            "jeu",
            "conjunto",
            "partición",
            "partição",
            "insieme",
            "deelset",
            "zbiór",
        ),
        *("划分", "数据集"),
    ),
    "group": (
        *("groups", "group_id", "groupid", "group_name", "tree", "trees", "tree_id", "treeid", "tree_name"),
        *("tree_no", "plant", "plants", "plant_id", "plantid", "unit", "units", "unit_id", "plot", "plot_id", "site"),
    ),
}
_SPLITS_OF_OTHERS = {
    "train": (
        *("train", "training", "trn", "tr", "learn", "entrenamiento", "entreno", "entraînement", "entrainement"),
        *("apprentissage", "treino", "treinamento", "addestramento", "allenamento", "treningowy", "trening", "eğitim"),
        *("обучение", "обучающая", "训练", "训练集", "訓練", "学習", "훈련", "학습"),
    ),
    "val": (
        *("val", "va", "valid", "validation", "validate", "validating", "dev", "development", "tune", "tuning"),
        *("validierung", "validación", "validacion", "validação", "validacao", "validazione", "validatie", "walidacja"),
        *("walidacyjny", "doğrulama", "валидация", "验证", "验证集", "検証", "검증"),
    ),
    "test": (
        *("test", "testing", "tst", "te", "holdout", "hold-out", "held-out", "prueba", "pruebas", "teste", "testowy"),
        *("тест", "тестовая", "测试", "测试集", "テスト", "시험", "테스트"),
    ),
}
SPLIT_NAMES = {name: split for split, names in _SPLITS_OF_OTHERS.items() for name in names}
"""What others call a split, in small letters, also in other languages."""
_MOST_TITLES = 5  # lines above the names of the columns
_QUOTES = {"'": "'", "`": "`", '"': '"', "“": "”", "„": "“", "”": "”", "«": "»"}
_NO_TABLES = (
    (b"PK\x03\x04", "a workbook (xlsx or ods) or another archive"),
    (b"PK\x05\x06", "an archive"),
    (b"\xd0\xcf\x11\xe0", "a workbook (xls)"),
    (b"\x1f\x8b", "compressed"),
    (b"PAR1", "a Parquet file"),
    (b"%PDF", "a PDF"),
)  # by the first bytes
_JSON, _MARKUP = re.compile(rb"\s*[\[{]\s*[\[{\"]"), re.compile(rb"\s*<[!?a-zA-Z]")
_HEAD = 4096  # bytes that show whether a file is text
_ENCODINGS = (
    *((b"\xff\xfe\0\0", "UTF-32"), (b"\0\0\xfe\xff", "UTF-32"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16")),
)
_DELIMITERS = {",": "", ";": "semicolons", "\t": "tabs", "|": "|"}


def remove_table(table: Path, columns: Sequence[str], is_own: Callable[[list[dict[str, str]]], bool]) -> bool:
    """Remove a table that an earlier run of a command has written, and nobody else.

    Args:
        table: The file.
        columns: Its columns as that command writes them.
        is_own: Whether that command writes such rows, which are cells by column.

    Returns:
        Whether no file is left there: it was missing or has been removed.
    """
    try:
        with table.open(encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file))
        if not lines or lines[0] != list(columns) or any(len(line) != len(columns) for line in lines):
            return False
        if not is_own([dict(zip(columns, line, strict=True)) for line in lines[1:]]):
            return False
        table.unlink()
    except FileNotFoundError:
        return True
    except (OSError, UnicodeError, csv.Error):
        return False
    return True


def read_rows(
    table: Path,
    needed: Sequence[str],
    optional: Sequence[str] = (),
    noun: str = "manifest",
    notes: list[str] | None = None,
) -> Iterator[tuple[int, dict[str, str], bool]]:
    """Read a CSV that was written by hand, by a spreadsheet or by bldml; messages call it `noun`.

    It may have commas, semicolons, tabs or | between cells, be in UTF-8 or UTF-16, and write its columns in capitals or
    by one of their `SYNONYMS`. What differs from a CSV with commas in UTF-8 is added to `notes`, in plain words.

    Yields number and cells by column of each row that is not empty, and whether there are more cells than columns.
    Bytes that are not UTF-8 are surrogate escapes. A DatasetError is raised if the file cannot be read, lacks a
    `needed` column, or has one or an `optional` one twice.
    """
    said: list[str] = []
    text = _decoded(table, noun, said)
    # Empty lines, and a hint for Excel on a line of its own.
    skipped = re.match(r"(?:[ \t]*(?:\r\n|\r|\n))*(?:sep=[,;\t|](?:\r\n|\r|\n))?", text, re.IGNORECASE)
    above = text[: skipped.end()] if skipped else ""
    text, first = text[len(above) :], len(above.splitlines()) + 1
    number = first
    try:
        titles = _titles(text, needed, optional)
        text, first = text.split("\n", titles)[-1], first + titles
        said += [f"from row {first} on"] if titles else []
        delimiter, columns, has_header, is_quoted = _layout(text, table, needed, optional, noun, said)
        if notes is not None and said:
            notes.append(f"The {noun} {show_path(table)} was read {', '.join(said)}.")
        reader = _reader(text, delimiter)
        if has_header:
            next(reader, None)
        for number, cells in enumerate(reader, first + has_header):  # for the message below
            cells = [unquoted(cell) for cell in cells] if is_quoted else cells
            if any(cell.strip() for cell in cells):
                padded = cells + [""] * (len(columns) - len(cells))
                is_too_wide = any(cell.strip() for cell in cells[len(columns) :])
                yield number, dict(zip(columns, padded, strict=False)), is_too_wide
    except csv.Error as error:
        message = f"The {noun} {show_path(table)} is not a valid CSV file: {error} after row {number}. Correct it."
        raise DatasetError(message, "csv-damaged", path=table, row=number, reason=str(error)) from error


def _reader(text: str, delimiter: str) -> Iterator[list[str]]:
    # newline="", because a cell may contain a line end; strict, because an unclosed quote must not consume the rest.
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)


def _decoded(table: Path, noun: str, said: list[str]) -> str:
    try:
        with table.open("rb") as file:
            content = file.read(LARGEST_TABLE + 1)
    except OSError as error:
        message = f"The {noun} {show_path(table)} cannot be read: {error.strerror}."
        raise DatasetError(message, "table-unreadable", path=table, reason=error.strerror) from error
    if len(content) > LARGEST_TABLE:
        message = f"The {noun} {show_path(table)} has more than {LARGEST_TABLE / 2**20:.0f} MiB, the most that is read."
        raise DatasetError(message, "table-too-large", path=table, expected=LARGEST_TABLE)
    # Excel writes "Unicode text" so, PowerShell its redirected output; some programs without the mark at the beginning.
    encoding = next((name for start, name in _ENCODINGS if content.startswith(start)), _without_mark(content))
    if encoding:
        said.append(f"as {encoding[:6]}")
        return content.decode(encoding, errors="replace").strip("\ufeff\0\x1a")
    what = next((what for start, what in _NO_TABLES if content.startswith(start)), "")
    what = what or ("JSON" if _JSON.match(content) else "a page or XML" if _MARKUP.match(content) else "")
    head = content[:_HEAD].rstrip(b"\0")
    if what or 10 * sum(byte < 9 or 13 < byte < 32 for byte in head) > len(head):
        message = (
            f"The {noun} {show_path(table)} is not CSV: it is {what or 'not text'}. Save the table as CSV (UTF-8)."
        )
        raise DatasetError(message, "table-no-text", path=table, found=what)
    return content.decode("utf-8", errors="surrogateescape").strip("\ufeff\0\x1a")


def _without_mark(content: bytes) -> str:
    """Return the encoding of a text in UTF-16 without a mark: every second byte of its first line is 0."""
    head = content[:64]
    for name, zeros, others in (("UTF-16-LE", head[1::2], head[::2]), ("UTF-16-BE", head[::2], head[1::2])):
        if len(head) > 8 and not any(zeros) and all(others):
            return name
    return ""


def unquoted(cell: str) -> str:
    """Return a cell without quotes around it that are no quotes of CSV.

    >>> [unquoted(cell) for cell in ("'BLD'", "“BLD”", "'=1", "leaf's", "'")]
    ['BLD', 'BLD', "'=1", "leaf's", "'"]
    """
    text = cell.strip()
    return text[1:-1] if len(text) > 2 and _QUOTES.get(text[0]) == text[-1] else cell


def _titles(text: str, needed: Sequence[str], optional: Sequence[str]) -> int:
    """Return the number of lines above the names of the columns; 0 also if there are no such names."""
    for number, line in enumerate(text.split("\n", _MOST_TITLES + 1)[: _MOST_TITLES + 1]):
        for delimiter in _DELIMITERS:
            with suppress(csv.Error):
                cells = [unquoted(cell).strip() for cell in next(_reader(line.rstrip("\r"), delimiter), [])]
                if all(column in _renamed(cells, needed, optional) for column in needed):
                    return number
        if number == 0 and _is_first_row(line, needed):
            return 0
    return 0


def _is_first_row(line: str, needed: Sequence[str]) -> bool:
    return any(_guessed(line.rstrip("\r").split(delimiter), needed) for delimiter in _DELIMITERS)


def _layout(
    text: str, table: Path, needed: Sequence[str], optional: Sequence[str], noun: str, said: list[str]
) -> tuple[str, list[str], bool, bool]:
    """Return what is between cells, the columns by our names, whether row 1 names them, whether it has quotes."""
    first: list[list[str]] = []
    damage: csv.Error | None = None
    for delimiter, words in _DELIMITERS.items():
        try:
            reader = _reader(text, delimiter)
            raw = next(reader, [])
            cells = [unquoted(cell).strip() for cell in raw]
        except csv.Error as error:
            damage = damage or error
            continue
        first.append(cells)
        for columns, has_header in ((_renamed(cells, needed, optional), True), (_guessed(cells, needed), False)):
            if columns is None or any(column not in columns for column in needed):
                continue
            _check_twice(table, cells, columns, needed, optional, noun)
            said += [f"with {words} between cells"] if words else []
            if has_header and _has_row_names(columns, next(reader, [])):
                said.append("with a first column that has no name")
                cells, columns = ["", *cells], ["", *columns]
            changed = [f"{show_path(old)} as {new}" for old, new in zip(cells, columns, strict=True) if old != new]
            if not has_header:
                said.append(f"without a header, with the columns {', '.join(columns)}")
            elif changed:
                said.append(f"with the column {', '.join(changed)}")
            is_quoted = any(unquoted(cell) != cell for cell in raw)
            said += ["with quotes around cells"] if is_quoted else []
            return delimiter, columns, has_header, is_quoted
    if damage:
        raise damage
    raise _no_column(table, first, needed, optional, noun)


def _has_row_names(columns: Sequence[str], row: Sequence[str]) -> bool:
    """Return whether the first row has a cell in front that the header lacks, as R writes the names of rows."""
    if "path" not in columns or len(row) != len(columns) + 1:
        return False
    place = columns.index("path")
    return not _is_photograph(row[place]) and _is_photograph(row[place + 1])


def _is_photograph(cell: str) -> bool:
    return unquoted(cell).strip().casefold().endswith(tuple(PHOTO_SUFFIXES | HEIF_SUFFIXES))


def _renamed(cells: Sequence[str], needed: Sequence[str], optional: Sequence[str]) -> list[str]:
    """Return the cells of row 1 with our names of columns instead of others, where ours is missing.

    >>> _renamed(["Filename", "Set", "note", "label"], ["path", "label", "split"], [])
    ['path', 'split', 'note', 'label']
    """
    columns = list(cells)
    plain = [
        "_".join(unicodedata.normalize("NFC", cell).casefold().replace("-", " ").replace("_", " ").split())
        for cell in cells
    ]
    for column in (*needed, *optional):
        if column not in cells:
            same = [i for i, name in enumerate(plain) if name == column]
            others = [i for i, name in enumerate(plain) if name in SYNONYMS.get(column, ()) and column in needed]
            for i in same or others:
                columns[i] = column
    return columns


def _guessed(cells: Sequence[str], needed: Sequence[str]) -> list[str] | None:
    """Return the columns of a table without a header; None if its first row does not tell.

    >>> _guessed(["BLD", "a/1.jpg", "train"], ["path", "label", "split"])
    ['label', 'path', 'split']
    """
    found = {
        "path": [i for i, cell in enumerate(cells) if _is_photograph(cell)],
        "split": [i for i, cell in enumerate(cells) if cell.casefold() in SPLIT_NAMES],
    }
    known = [column for column in found if column in needed]
    if len(cells) != len(needed) or "path" not in known or any(len(found[column]) != 1 for column in known):
        return None
    places = {found[column][0]: column for column in known}
    rest = [column for column in needed if column not in known]
    others = [i for i in range(len(cells)) if i not in places]
    if len(rest) > 1 or not all(cells[i] for i in others):
        return None
    places |= dict(zip(others, rest, strict=True))
    return [places[i] for i in range(len(cells))]


def _check_twice(
    table: Path, cells: list[str], columns: list[str], needed: Sequence[str], optional: Sequence[str], noun: str
) -> None:
    twice = [column for column in (*needed, *optional) if columns.count(column) > 1]
    if twice:
        found = [cell for cell, column in zip(cells, columns, strict=True) if column in twice]
        named = "" if set(found) == set(twice) else f" ({show_path(', '.join(found))})"
        message = f"The {noun} {show_path(table)} has the column {', '.join(twice)} twice{named}. Remove or rename one."
        raise DatasetError(message, "column-twice", path=table, found=twice)


def _no_column(
    table: Path, first: list[list[str]], needed: Sequence[str], optional: Sequence[str], noun: str
) -> DatasetError:
    # Of the ways to divide row 1, that with most of the columns.
    columns = max(first, key=lambda cells: sum(c in _renamed(cells, needed, optional) for c in needed))
    missing = [column for column in needed if column not in _renamed(columns, needed, optional)]
    also = " (group is optional)" if "group" in optional else ""
    together = len(columns) == 1 and all(column in columns[0].casefold() for column in needed)
    also += ". Put commas between them" if together else ""
    message = (
        f"The {noun} {show_path(table)} has no column {', '.join(missing)}. Found in row 1: "
        f"{show_path(', '.join(columns)) or 'nothing'}. Required columns: {', '.join(needed)}{also}."
    )
    return DatasetError(message, "column-missing", path=table, found=columns, expected=[*needed])
