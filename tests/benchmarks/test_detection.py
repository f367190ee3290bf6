"""The figures of benchmarks/detect.py, against hand-computed values and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import roc_auc_score

from benchmarks.detection import auroc, calibration_error, length_strata_of, matched_auroc, precision_at

SUSPICION = hnp.arrays(float, 12, elements=st.integers(-3, 3).map(float))


@given(SUSPICION, hnp.arrays(bool, 12).filter(lambda w: 0 < w.sum() < 12))
def test_auroc_is_scikit_learns(suspicion, wrong):
    assert auroc(wrong, suspicion) == pytest.approx(roc_auc_score(wrong, suspicion))


def test_matched_auroc_by_hand():
    # Stratum 0: one wrong above one of two right ones (1/2 of 2 couples); stratum 1: wrong above right (1 of 1).
    wrong = np.array([1, 0, 0, 1, 0], dtype=bool)
    suspicion = np.array([2.0, 1.0, 3.0, 0.5, 0.0])
    assert matched_auroc(wrong, suspicion, np.array([0, 0, 0, 1, 1])) == pytest.approx((1 + 1) / 3)


def test_which_answer_is_longer_tells_nothing_once_lengths_are_matched():
    rng = np.random.default_rng(0)
    chosen, rejected = rng.integers(10, 200, (2, 4000))
    wrong = rng.random(4000) < np.where(chosen < rejected, 0.35, 0.05)  # flipped so that the longer one won
    suspicion = (rejected > chosen).astype(float)
    assert auroc(wrong, suspicion) > 0.7
    assert matched_auroc(wrong, suspicion, length_strata_of(chosen, rejected)) == pytest.approx(0.5)


def test_precision_and_calibration_by_hand():
    wrong = np.array([1, 0, 1, 0], dtype=bool)
    assert precision_at(wrong, np.array([4.0, 3, 2, 1]), 0.5) == 0.5
    assert calibration_error(wrong, np.array([1.0, 0, 1, 0])) == 0
    assert calibration_error(wrong, np.full(4, 0.75), bins=1) == pytest.approx(0.25)
