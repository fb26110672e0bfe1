"""Grad-CAM heat maps of photographs, each by a run that did not learn from it."""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

from bldml.dataset.files import unescape_path
from bldml.errors import BldmlError, DatasetError
from bldml.inference.classifier import classifier_of
from bldml.inference.gradcam import Map
from bldml.io.safe_points import safe_point
from bldml.sweep.results.gathering import Contender
from bldml.training.checkpoint import read_checkpoint


def unseen_maps(contender: Contender, paths: Sequence[str], root: Path) -> tuple[dict[str, Map], str]:
    """Return the maps of photographs, by the run of the first pooled seed whose test fold each of them is in.

    Args:
        contender: A configuration with pooled predictions of folds.
        paths: The photographs, as in predictions.csv.
        root: Their folder.

    Returns:
        The maps, (rows, columns) in [0, 1], by path; and why runs have none, a sentence, empty if all have. Photographs
        that cannot be read have none either.
    """
    result = contender.result
    assert result is not None
    fold_of = dict(zip((row.path for row in result.rows[0]), result.pooled.folds.tolist(), strict=True))
    runs = {one.planned.fold: one for one in contender.runs if one.planned.seed == result.seeds[0]}
    of_fold = defaultdict[int, list[str]](list)
    for path in paths:
        of_fold[fold_of[path]].append(path)
    maps, why = dict[str, Map](), ""
    with tqdm(total=len(paths), desc="Heat maps", unit="photo", leave=False, disable=None) as bar:
        for fold, own in sorted(of_fold.items()):  # one network at a time is in memory
            data = runs[fold].data
            assert data is not None  # its predictions are pooled
            try:
                classifier = classifier_of(read_checkpoint(data.run.best_checkpoint))
                for path in own:
                    safe_point()
                    with suppress(DatasetError, OSError):  # gone, or changed since it was predicted
                        maps[path] = classifier.verdict_with_map(root / unescape_path(path))[1]
                    bar.update()
            except BldmlError as error:  # no checkpoint any more, or a backbone without a layer for it
                why = why or str(error)
    return maps, why
