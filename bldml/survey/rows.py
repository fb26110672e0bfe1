"""One row for each photograph of a survey, as CSV, as GeoJSON (RFC 7946), and its style for QGIS."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import quoteattr

from bldml.io.text import Cell, csv_text
from bldml.survey.positions import Position

COLUMNS = (
    *("path", "date", "longitude", "latitude", "label", "probability", "band", "familiar", "unit", "unreadable"),
    "model",
)
# Colour-blind safe (Okabe and Ito 2008), and of different lightness.
_COLOURS = {"positive": "213,94,0", "uncertain": "240,228,66", "negative": "0,114,178", "": "153,153,153"}


@dataclass(frozen=True, slots=True)
class SurveyRow:
    """What is written of one photograph."""

    path: str  # below the folder of photographs, as `escape_path` writes it
    date: str  # ISO 8601; empty where unknown
    position: Position | None  # as far as it may be written
    label: str  # predicted class; empty if the photograph cannot be read
    probability: float | None
    band: str  # positive, uncertain or negative; empty if the checkpoint has no bands
    familiar: bool | None  # whether it is like the training photographs; None if not known
    unit: str  # tree, site or other unit; empty for none
    unreadable: str  # why it cannot be read; empty if it can


def survey_csv(rows: Iterable[SurveyRow], model: str) -> str:
    """Return the table; `model` is the SHA-256 of the checkpoint."""

    def cells(row: SurveyRow) -> list[Cell]:
        place: tuple[float | None, ...] = row.position or (None, None)
        familiar = {True: "yes", False: "no", None: ""}[row.familiar]
        return [
            *(row.path, row.date, *place, row.label, row.probability, row.band, familiar, row.unit, row.unreadable),
            model,
        ]

    return csv_text(COLUMNS, map(cells, rows))


def survey_geojson(rows: Iterable[SurveyRow], model: str) -> str:
    """Return the same as a FeatureCollection in WGS 84, without foreign members; the geometry is null where unknown."""

    def feature(row: SurveyRow) -> str:
        point = {"type": "Point", "coordinates": list(row.position)} if row.position else None
        properties = {name: getattr(row, name) for name in COLUMNS if name not in ("longitude", "latitude", "model")}
        known = {name: None if value == "" else value for name, value in properties.items()} | {"model": model}
        content = {"type": "Feature", "geometry": point, "properties": known}
        return json.dumps(content, ensure_ascii=False, allow_nan=False)

    return '{"type": "FeatureCollection", "features": [\n' + ",\n".join(map(feature, rows)) + "\n]}\n"


def qgis_style(rows: Sequence[SurveyRow], positive_class: str, negative_class: str) -> str:
    """Return a style for QGIS 3: a colour for each band, or for each label if no photograph has a band.

    QGIS takes it by itself if it lies beside the GeoJSON under the same name.
    """
    if any(row.band for row in rows):
        attribute, values = "band", {name: name for name in ("positive", "uncertain", "negative")}
    else:
        attribute, values = "label", {"positive": positive_class, "negative": negative_class}
    values[""] = ""
    symbols, categories = [], []
    for number, (kind, value) in enumerate(values.items()):
        categories.append(
            f'<category symbol="{number}" value={quoteattr(value)} label={quoteattr(value or "unreadable")} '
            'render="true" type="string"/>'
        )
        options = {
            "color": f"{_COLOURS[kind]},255", "name": "circle", "outline_color": "35,35,35,255",
            "outline_style": "solid", "outline_width": "0.2", "outline_width_unit": "MM", "size": "2.6",
            "size_unit": "MM", "scale_method": "diameter",
        }  # fmt: skip
        properties = "".join(f'<Option name="{key}" type="QString" value="{text}"/>' for key, text in options.items())
        symbols.append(
            f'<symbol name="{number}" type="marker" alpha="1" clip_to_extent="1" force_rhr="0">'
            f'<layer class="SimpleMarker" enabled="1" locked="0" pass="0"><Option type="Map">{properties}</Option>'
            "</layer></symbol>"
        )
    return (
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
        '<qgis version="3.28" styleCategories="Symbology">\n'
        f'<renderer-v2 type="categorizedSymbol" attr="{attribute}" symbollevels="0" enableorderby="0" '
        'forceraster="0" referencescale="-1">\n'
        + "\n".join(("<categories>", *categories, "</categories>", "<symbols>", *symbols, "</symbols>"))
        + "\n</renderer-v2>\n</qgis>\n"
    )
