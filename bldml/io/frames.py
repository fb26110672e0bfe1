"""Rows as a pandas table; pandas is an extra."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bldml.errors import UsageError

if TYPE_CHECKING:
    from pandas import DataFrame


def data_frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> "DataFrame":
    """Return rows as a table; UsageError without pandas."""
    try:
        import pandas
    except ImportError as error:
        message = "Tables need pandas: pip install 'bldml[notebook]'."
        raise UsageError(message, "pandas-missing") from error
    return pandas.DataFrame(rows, columns=None if columns is None else list(columns))
