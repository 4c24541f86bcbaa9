"""Radau IIA of order 5, a collocation method for stiff equations (Hairer & Wanner 1996, chapter IV.8)."""

from __future__ import annotations

import math

import numpy as np

_ROOT = math.sqrt(6.0)
MATRIX = np.array(
    [
        [(88 - 7 * _ROOT) / 360, (296 - 169 * _ROOT) / 1800, (-2 + 3 * _ROOT) / 225],
        [(296 + 169 * _ROOT) / 1800, (88 + 7 * _ROOT) / 360, (-2 - 3 * _ROOT) / 225],
        [(16 - _ROOT) / 36, (16 + _ROOT) / 36, 1 / 9],
    ]
)
NODES = np.array([(4 - _ROOT) / 10, (4 + _ROOT) / 10, 1.0])
ERROR = np.array([-13 - 7 * _ROOT, -13 + 7 * _ROOT, -1.0]) / 3  # estimate of the error of a step
REAL = 3 + 3 ** (2 / 3) - 3 ** (1 / 3)  # real eigenvalue of the inverse of the matrix
