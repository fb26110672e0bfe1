"""Logistic regression on a few features, as a baseline: how well the class is predicted without looking at the leaf."""

import warnings

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.floating]  # (n, columns)


def regression_scores(
    features: Features, labels: NDArray[np.int64], others: Features, strength: float = 1.0
) -> Features:
    """Fit a logistic regression with standardised features and equal weight of the classes, and return its logits.

    Args:
        features: To fit on, (n, columns); a column without variance is left out.
        labels: 0 or 1, both present, (n,).
        others: Features of the photographs to predict, (m, columns).
        strength: C of the regression; a smaller value regularises more.

    Returns:
        Logits of the other photographs, (m,); 0 if no feature varies.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    varies = np.ptp(features, axis=0) > 0
    if not varies.any():
        return np.zeros(len(others))
    features, others = features[:, varies], others[:, varies]
    centre, spread = features.mean(axis=0), features.std(axis=0).astype(features.dtype)
    spread[spread == 0] = 1
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopping just before convergence predicts as well
        model.fit((features - centre) / spread, labels)
    logits: Features = model.decision_function((others - centre) / spread)
    return logits
