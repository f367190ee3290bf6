"""Suspicion rules: one number a pair, higher = more likely that chosen and rejected are the wrong way round.

To add one: write a small function in the module of its kind, decorate it with `register`, add its hand-computed value
to the tests.
"""

from rmo_curate.rules import of_margins  # noqa: F401  (they enter their rules, in this order)

# isort: split
from rmo_curate.rules import of_trajectory  # noqa: F401

# isort: split
from rmo_curate.rules import fitted  # noqa: F401

# isort: split
from rmo_curate.rules import controls  # noqa: F401

# isort: split
from rmo_curate.rules.registry import RULES, Rule, check_proxy, get_rule, is_constant, prepared, suspicion

__all__ = ["RULES", "Rule", "check_proxy", "get_rule", "is_constant", "prepared", "suspicion"]
