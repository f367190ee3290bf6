"""The machine and versions of a measurement, which every benchmark records."""

from __future__ import annotations

import os
import platform
from typing import Any

import numpy as np

from rmo_train.store.manifests import versions


def environment(**more: Any) -> dict[str, Any]:
    """Processors, load, machine and versions at the time of the call: call it before the first measurement.

    cpus_used: those that this process may run on; load_average_at_start: processes wanting one, the last minute's mean.
    """
    return {
        "cpus": os.cpu_count(),
        "cpus_used": len(os.sched_getaffinity(0)),
        "load_average_at_start": os.getloadavg()[0],
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        **versions(),
        **more,
    }
