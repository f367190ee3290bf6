"""Suspicion rules: one number a pair, higher = more likely that chosen and rejected are the wrong way round.

To add one: write a small function in the module of its kind, decorate it with `register`, add its hand-computed value
to the tests.
"""

from rmo_curate.rules import controls, fitted, of_margins, of_trajectory  # noqa: F401  (they enter their rules)
from rmo_curate.rules.registry import RULES, Rule, check_proxy, get_rule, is_constant, prepared, suspicion

__all__ = ["RULES", "Rule", "check_proxy", "get_rule", "is_constant", "prepared", "suspicion"]
