"""Which column of a table is which, where others named them."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from bldml.dataset.files import shell_word, show_path
from bldml.dataset.images import HEIF_SUFFIXES, PHOTO_SUFFIXES
from bldml.errors import DatasetError

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
        *("choice", "symptom", "symptoms", "condition", "health", "health_status"),
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
_IDS = ("id", "name", "url", "image_url", "photo_url")  # what may be a path
_SPLITS_OF_OTHERS = {
    "train": (
        *("train", "training", "trn", "tr", "learn", "entrenamiento", "entreno", "entraînement", "entrainement"),
        *("apprentissage", "treino", "treinamento", "addestramento", "allenamento", "treningowy", "trening", "eğitim"),
        *("обучение", "обучающая", "训练", "训练集", "訓練", "学習", "훈련", "학습"),
    ),
    "val": (
        *("val", "va", "vld", "valid", "validation", "validate", "validating", "dev", "development", "tune", "tuning"),
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
_QUOTES = {"'": "'", "`": "`", '"': '"', "“": "”", "„": "“", "”": "”", "«": "»"}


def unquoted(cell: str) -> str:
    """Return a cell without quotes around it that are no quotes of CSV.

    >>> [unquoted(cell) for cell in ("'BLD'", "“BLD”", "'=1", "leaf's", "'")]
    ['BLD', 'BLD', "'=1", "leaf's", "'"]
    """
    text = cell.strip()
    return text[1:-1] if len(text) > 2 and _QUOTES.get(text[0]) == text[-1] else cell


def has_row_names(columns: Sequence[str], row: Sequence[str]) -> bool:
    """Return whether the first row has a cell in front that the header lacks, as R writes the names of rows."""
    if "path" not in columns or len(row) != len(columns) + 1:
        return False
    place = columns.index("path")
    return not _is_photograph(row[place]) and _is_photograph(row[place + 1])


def _is_photograph(cell: str) -> bool:
    return unquoted(cell).strip().casefold().endswith(tuple(PHOTO_SUFFIXES | HEIF_SUFFIXES))


def renamed_columns(
    cells: Sequence[str], needed: Sequence[str], optional: Sequence[str], row: Sequence[str] = ()
) -> list[str]:
    """Return the cells of row 1 with our names of columns instead of others, where ours is missing.

    An `id` is taken for the path if nothing else is, and if it does not count the rows: `row` is the first one.

    >>> renamed_columns(["Filename", "Set", "note", "label"], ["path", "label", "split"], [])
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
    if "path" in needed and "path" not in columns and len(row) >= len(cells):
        ids = [i for i, name in enumerate(plain) if name in _IDS and row[i].strip() not in ("", "0", "1")]
        if len(ids) == 1:
            columns[ids[0]] = "path"
    return columns


def guessed_columns(cells: Sequence[str], needed: Sequence[str]) -> list[str] | None:
    """Return the columns of a table without a header; None if its first row does not tell.

    >>> guessed_columns(["BLD", "a/1.jpg", "train"], ["path", "label", "split"])
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


def check_twice(
    table: Path, cells: list[str], columns: list[str], needed: Sequence[str], optional: Sequence[str], noun: str
) -> None:
    """Raise DatasetError if a table has a column twice, of `cells` in row 1 that mean `columns`."""
    twice = [column for column in (*needed, *optional) if columns.count(column) > 1]
    if twice:
        found = [cell for cell, column in zip(cells, columns, strict=True) if column in twice]
        named = "" if set(found) == set(twice) else f" ({show_path(', '.join(found))})"
        message = f"The {noun} {show_path(table)} has the column {', '.join(twice)} twice{named}. Remove or rename one."
        raise DatasetError(message, "column-twice", path=table, found=twice)


def missing_column(
    table: Path,
    cells: Sequence[str],
    missing: Sequence[str],
    needed: Sequence[str],
    optional: Sequence[str],
    noun: str,
    problem: str = "",
) -> DatasetError:
    """Return the error of a table whose row 1 has these cells and lacks the `missing` columns.

    `problem` is why columns of 0 and 1 were not read as the label; empty if there are none.
    """
    if not any(cells):
        message = f"The {noun} {show_path(table)} is empty. Required columns: {', '.join(needed)}."
        return DatasetError(message, "table-empty", path=table, expected=[*needed])
    also = " (group is optional)" if "group" in optional else ""
    is_one_cell = len(cells) == 1 and (
        all(column in cells[0].casefold() for column in needed) or _is_photograph(cells[0].split()[0])
    )
    also += ". Put commas between them" if is_one_cell and " " in cells[0].strip() else ""
    also += f". {problem}" if problem else ""
    if missing == ["split"] and noun == "manifest":
        also += f". To make the splits: python -m bldml split PHOTOGRAPHS --manifest {shell_word(table)}"
    message = (
        f"The {noun} {show_path(table)} has no column {', '.join(missing)}. Found in row 1: "
        f"{show_path(', '.join(cells))}. Required columns: {', '.join(needed)}{also}."
    )
    return DatasetError(message, "column-missing", path=table, found=[*cells], expected=[*needed])
