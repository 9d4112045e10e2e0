"""`digits`: the 1797 images of 8 x 8 that come with scikit-learn. Nothing to download."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pcbench.data.dataset import Source, Split, fixed_permutation

# A fifth. The UCI release has an official test split, but scikit-learn bundles only that test
# split, so one has to be made.
TEST_EXAMPLES = 360


def load(config: Mapping[str, Any]) -> Source:
    """x: (N, 8, 8, 1) float32 in [0, 1].

    The pixels are the integers 0..16 (ink counted in 4 x 4 blocks), which k/16 maps to [0, 1]
    exactly in floating point; no uint8 holds them so that the usual /255 gives k/16.
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    x = (pixels / 16).astype(np.float32).reshape(-1, 8, 8, 1)
    y = labels.astype(np.int32)
    order = fixed_permutation(len(y))
    test, train = order[:TEST_EXAMPLES], order[TEST_EXAMPLES:]
    return Source(classes=10, train=Split(x[train], y[train]), test=Split(x[test], y[test]))
