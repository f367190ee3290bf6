"""Suspicion rules: one number per pair, higher = more likely that chosen and rejected are the wrong way round.

To add one, write a function of `Scores` in the module of its kind (`of_evidence`, `of_margins`, `controls`; `rule`
defines a rule), enter a `Rule` in `RULES`, and add its hand-computed value to the tests.
"""

from __future__ import annotations

from rmo_curate.evidence.rules import controls, of_evidence, of_margins
from rmo_curate.evidence.rules.rule import (
    LOG_ODDS,
    NATS,
    NATS_PER_TOKEN,
    Rule,
    as_it_is,
    check_proxy,
    is_constant,
    sparing_supported,
    suspicion,
)
from rmo_train.console.errors import UserError, nearest

__all__ = ["LOG_ODDS", "RULES", "Rule", "check_proxy", "get_rule", "is_constant", "sparing_supported", "suspicion"]

RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule("posterior", as_it_is(of_evidence.posterior), LOG_ODDS, needs_proxy=False, spares_supported=True),
        Rule("irm", as_it_is(of_margins.irm), NATS),
        Rule("irm-ln", as_it_is(of_margins.irm_ln), NATS_PER_TOKEN),
        Rule("rmo", as_it_is(of_margins.rmo), NATS),
        Rule("rmo-ln", as_it_is(of_margins.rmo_ln), NATS_PER_TOKEN),
        Rule("score", as_it_is(of_margins.score), "units of the score column", needs_proxy=False),
        Rule("length", as_it_is(controls.length), "tokens", needs_proxy=False),
        Rule("random", as_it_is(controls.random), "units of a random number", needs_proxy=False),
        Rule("none", as_it_is(controls.none), NATS, needs_proxy=False),
    )
}


def get_rule(name: str) -> Rule:
    if name not in RULES:
        raise UserError(f"--rule {name}: no such rule; expected one of {', '.join(RULES)}{nearest(name, RULES)}")
    return RULES[name]
