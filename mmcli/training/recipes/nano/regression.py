"""Logistic regression by Newton's method."""

import numpy as np

ROUNDS, FARTHEST = 30, 30.0


def logistic(x: np.ndarray, y: np.ndarray, decay: float = 1.0) -> np.ndarray:
    """Coefficients [F] for rows x [N, F] and outcomes y [N] of 0 or 1; `decay` holds them near 0, but for that of a
    column of ones."""
    own = np.diag(np.where((x == 1).all(0), min(decay, 1e-3), decay))
    weights = np.zeros(x.shape[1])
    for _ in range(ROUNDS):
        p = 1 / (1 + np.exp(-(x @ weights).clip(-FARTHEST, FARTHEST)))
        slope = x.T @ (y - p) - own @ weights
        weights += np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + own, slope)
    return weights
