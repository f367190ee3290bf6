from __future__ import annotations

from pathlib import Path

import pytest

from tests.rmo_curate.filter.by_hand import D_0, D_T


@pytest.fixture
def folder(make_run) -> Path:
    extra = {
        "source": ["math", "chat"] * 5 + ["math"],
        "chosen_score": [float(i) for i in range(11)],
        "rejected_score": [5.0] * 11,
        "judge": [3, 2, -1, 0, 1, 2, 3, 4, 5, 6, 7],
    }
    rows = [{"chosen": f"yes {i}", "rejected": f"no {i}", "chosen_tokens": 3, "rejected_tokens": 2} for i in range(11)]
    return make_run({"base": D_0, "oof-16": D_T}, rows=rows, too_long=[10], extra=extra)
