"""What is caught by calling pairs noisy, told from swapped copies."""

from __future__ import annotations

import numpy as np

from rmo_curate.evidence import swapped_copies
from rmo_curate.evidence.label_noise import Resampled
from rmo_curate.evidence.swapped_copies import Detection
from rmo_curate.filter.decisions import Decisions, noisy_rule


def suspicion_of_swapped(decisions: Decisions) -> np.ndarray | None:
    """The rule's suspicion of every pair with its answers exchanged [pairs]; None where swapped copies tell nothing of
    it: a control, or margins of a model that saw the pairs."""
    rule = noisy_rule(decisions.settings)
    if not rule.told_by_swapped_copies or (rule.needs_proxy and not swapped_copies.held_out(decisions.scores)):
        return None
    return rule.suspicion_of_swapped(decisions.scores)


def caught(decisions: Decisions, of_swapped: np.ndarray, resampled: Resampled) -> Detection | None:
    """What is caught by calling pairs noisy; None where none is. of_swapped: of `suspicion_of_swapped`."""
    least = decisions.least_suspicion
    if least is None:
        return None
    with np.errstate(invalid="ignore"):
        return swapped_copies.detection(decisions.suspicion >= least, of_swapped >= least, resampled)
