"""DeLong's test on the example that pROC publishes: 113 patients, two markers of the same outcome.

Data: outcome, WFNS grade and S100B (µg/l) of data set aSAH in the R package pROC 1.18.0 (Robin et al. 2011, BMC
Bioinformatics 12:77; licence GPL, version 3 or later), first in Turck et al. 2010, Intensive Care Medicine 36:107,
doi 10.1007/s00134-009-1641-y. Published there (?roc.test): Z = 2.209, p = 0.02718, areas 0.8237 and 0.7314, 95 %
interval of the difference 0.0104 to 0.1742.
"""

import numpy as np
import pytest
from numpy.typing import NDArray

from bldml.metrics.auroc import PairedAuroc, estimate_auroc, paired_auroc

# WFNS grade and S100B of each patient.
GOOD = """
1:.13 1:.14 1:.10 1:.04 5:.47 1:.18 2:.10 2:.10 1:.04 2:.08 2:.04 1:.09 1:.11 1:.07 2:.17 1:.07 2:.11 1:.13
1:.19 3:.05 4:.16 1:.14 4:.34 1:.09 5:.50 5:.46 1:.16 1:.07 2:.43 4:.45 1:.11 1:.08 2:.09 2:.08 1:.06 2:.13
1:.10 2:.14 2:.15 1:.06 1:.05 1:.09 1:.04 2:.09 1:.08 2:.16 1:.09 1:.08 3:.33 2:.11 4:.28 2:.07 1:.10 4:.32
1:.07 1:.05 5:.24 4:.38 2:.10 2:.15 1:.08 1:.14 1:.10 3:.07 1:.04 2:.19 2:.15 4:.47 4:.17 1:.15 1:.50 1:.48
"""
POOR = """
3:.13 2:.10 4:.16 5:.12 5:.44 5:.71 5:.49 2:.07 5:.33 2:.09 1:.07 2:.41 5:.35 4:.48 4:.96 2:.25 5:.86 5:.52
5:2.07 2:.07 5:.77 2:.30 5:.03 2:.09 4:.23 5:.70 4:.27 4:.71 1:.08 4:.26 4:.13 2:.10 2:.11 5:.22 5:.56 2:.14
2:.58 5:.32 5:.82 5:.74 5:.44
"""

ROWS = [(0, cell) for cell in GOOD.split()] + [(1, cell) for cell in POOR.split()]
OUTCOME = np.array([label for label, _ in ROWS])
WFNS, S100B = np.array([cell.split(":") for _, cell in ROWS], dtype=np.float64).T


def test_two_markers_as_published() -> None:
    found = paired_auroc(OUTCOME, WFNS, S100B)
    assert (OUTCOME.size, OUTCOME.sum()) == (113, 41)
    assert (found.first, found.second) == pytest.approx((0.8237, 0.7314), abs=5e-5)
    assert found.z == pytest.approx(2.209, abs=5e-4)
    assert found.p == pytest.approx(0.02718, abs=5e-6)
    assert found.difference.interval is not None
    assert (found.difference.interval.low, found.difference.interval.high) == pytest.approx((0.0104, 0.1742), abs=5e-5)


def test_two_markers_as_by_every_pair_of_patients() -> None:
    """The same test without ranks: DeLong's components straight from their definition."""
    found = paired_auroc(OUTCOME, WFNS, S100B)
    kernels = [_kernel(WFNS), _kernel(S100B)]
    difference = kernels[0] - kernels[1]
    of_poor, of_good = difference.mean(axis=1), difference.mean(axis=0)
    variance = of_poor.var(ddof=1) / of_poor.size + of_good.var(ddof=1) / of_good.size
    assert (found.first, found.second) == pytest.approx([kernel.mean() for kernel in kernels], abs=1e-12)
    assert found.z == pytest.approx(difference.mean() / np.sqrt(variance), abs=1e-9)
    assert [estimate_auroc(OUTCOME, marker).value for marker in (WFNS, S100B)] == [found.first, found.second]


def test_order_of_patients_and_of_markers_plays_no_part() -> None:
    order = np.random.default_rng(0).permutation(OUTCOME.size)
    found, turned = (
        paired_auroc(OUTCOME, WFNS, S100B),
        paired_auroc(OUTCOME[order], np.exp(S100B[order]), 10 * WFNS[order]),
    )
    assert _numbers(turned) == pytest.approx([found.second, found.first, -(found.z or 0), found.p])


def _kernel(marker: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 where the patient with a poor outcome has the higher marker, one half where both are equal."""
    poor, good = marker[OUTCOME == 1][:, None], marker[OUTCOME == 0][None]
    result: NDArray[np.float64] = (poor > good) + 0.5 * (poor == good)
    return result


def _numbers(test: PairedAuroc) -> list[float | None]:
    return [test.first, test.second, test.z, test.p]
