"""What a user can ask of `rmo-curate filter`, and the presets that ask it for them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from rmo_curate.evidence.columns import EvidenceColumns
from rmo_curate.evidence.rules import RULES, get_rule
from rmo_train.console.errors import UserError
from rmo_train.console.settings import flag_of, from_recipe

# Each preset gives a value to everything that decides which pairs go. `authors-code` cuts at a constant range, not
# at a quantile (see `ambiguity.authors_range`), so its low_q is 0: no quantile is used.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"rule": "rmo", "margin": "logp", "low_q": 0.1, "high_q": 0.0, "hard": False},
    "authors-code": {"rule": "rmo", "margin": "logp", "low_q": 0.0, "high_q": 0.0, "hard": True},
}
AUTO, OF_AUTO = "auto", "posterior"
WEIGHING = ("weight", "soft-label", AUTO)  # actions that read every pair's probability and drop none as noisy
CUTS = ("high_q", "noise_rate", "precision")  # ways to say how many noisy pairs there are


class FilterSettings(EvidenceColumns):
    """Settings of the filter, resolved: what a preset or `--rule none` implies stands in the fields."""

    low_q: float = Field(
        default=0.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Share of pairs to drop as ambiguous: those with margins closest to 0; 0 drops none",
    )
    high_q: float | None = Field(
        default=None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Drop as noisy the pairs above this quantile of suspicion, if their suspicion is "
        "positive; 1 drops none",
    )
    rule: str = Field(
        default=AUTO,
        validate_default=True,
        description=f"Rule that computes suspicion: {', '.join(RULES)}; auto: {OF_AUTO}",
    )
    margin: Literal["reward", "logp", "mean_logp"] = Field(
        default="reward", description="Margin used to find ambiguous pairs"
    )
    preset: Literal["paper", "authors-code"] | None = Field(
        default=None,
        description="Use the rule, margin and quantiles of the paper or of its authors' script",
    )
    hard: bool = Field(
        default=False, description="Drop ambiguous pairs strictly below the quantile instead of sampling around it"
    )
    noise_rate: str | None = Field(
        default=None,
        description="Share of pairs to drop as noisy, such as 0.2; auto: as many as it pays to drop, at most the "
        "estimated share of wrong labels (default of --action drop: auto)",
    )
    precision: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Drop as many noisy pairs as possible while at least this share of them is mislabelled, "
        "as estimated by swapped copies",
    )
    action: Literal["drop", "weight", "soft-label", "flip", "auto"] = Field(
        default="auto",
        description="What to do with noisy pairs. auto: keep them and have the trainer soften every label by the "
        "probability that it is right, as far as that pays; soft-label: the same in full; drop: remove them; "
        "flip: exchange chosen and rejected; weight: keep all pairs, weighted by that probability. With a cut, a "
        "preset or another rule, the default is drop",
    )
    protect: tuple[str, ...] = Field(
        default=(),
        description="COLUMN=VALUE: never drop, flip or weight pairs with this value because of their margins; "
        "repeatable",
    )
    decisions: Path | None = Field(
        default=None, description="JSON file of a reviewer's decisions (keep, drop or flip) by id"
    )
    score_column: str | None = Field(
        default=None, description="Column with your own margins or scores, for --rule score"
    )
    end: str | None = Field(
        default=None, description="Last checkpoint of the trajectory (default: chosen from the run)"
    )
    seed: int = Field(default=42, description="Random seed for sampling ambiguous pairs")

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, given: Any) -> Any:
        """Fill in what a preset sets, and refuse a flag that the preset excludes."""
        if not isinstance(given, dict):
            return given
        name = given.get("preset")
        if isinstance(name, str) and name in PRESETS:
            preset = PRESETS[name]
            clashes = [flag_of(field) for field in (*preset, *CUTS[1:]) if field in given]
            if clashes:
                raise UserError(
                    f"--preset {name} sets {', '.join(flag_of(field) for field in preset)} together, and "
                    f"{', '.join(clashes)} is also given; leave out one or the other"
                )
            if given.get("action") in WEIGHING:
                raise UserError(
                    f"--preset {name} drops noisy pairs, and --action {given['action']} drops none; leave out one or "
                    "the other"
                )
            return {"action": own_action(given)} | given | preset
        cuts = [flag_of(field) for field in CUTS if given.get(field) is not None]
        if len(cuts) > 1:
            raise UserError(f"{' and '.join(cuts)} each set how many pairs are dropped as noisy; give only one of them")
        if given.get("action") == AUTO and own_action(given) != AUTO and not cuts:
            raise UserError("--action auto weighs all evidence, so another --rule has no effect; leave one of them out")
        if cuts and given.get("action") in WEIGHING:
            raise UserError(
                f"--action {given['action']} drops no noisy pairs, so {cuts[0]} has no effect; leave it out"
            )
        if given.get("score_column") is not None:
            given = {"rule": "score"} | given
        given = {"action": own_action(given)} | given
        if cuts or given.get("rule") == "none" or given["action"] in WEIGHING:
            return given
        return given | {"noise_rate": AUTO}

    @field_validator("noise_rate", mode="before")
    @classmethod
    def _auto_or_share(cls, value: Any) -> Any:
        if value in (None, "auto"):
            return value
        try:
            share = float(value)
        except (TypeError, ValueError):
            share = -1.0
        if not 0 <= share < 0.5:
            raise ValueError("expected auto, or a share of at least 0 and below 0.5")
        return f"{share:g}"

    @field_validator("protect", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _score_has_its_column(self) -> Self:
        if (self.rule == "score") != (self.score_column is not None):
            raise ValueError("--rule score and --score-column NAME must be given together")
        return self

    @property
    def weighs_evidence(self) -> bool:
        """Whether anything that these settings ask for needs the posterior of all evidence."""
        wanted = self.action in WEIGHING or self.noise_rate == AUTO or self.precision is not None
        return wanted or self.rule == OF_AUTO

    @field_validator("rule")
    @classmethod
    def _known_rule(cls, rule: str) -> str:
        return get_rule(OF_AUTO if rule == AUTO else rule).name


class FilterCommand(FilterSettings):
    """`rmo-curate filter`."""

    run: Path = from_recipe("score.out", description="Run folder made by `rmo-curate score`", argument="RUN")
    out: Path = from_recipe("filter.out", description="Shard folder")

    @model_validator(mode="after")
    def _cuts_apart(self) -> Self:
        if self.high_q and self.high_q < 1 and self.low_q >= self.high_q:
            raise ValueError(
                f"--low-q {self.low_q:g} is not below --high-q {self.high_q:g}: nearly all pairs would be "
                "dropped; expected values such as --low-q 0.1 --high-q 0.95"
            )
        return self


def own_action(settings: Mapping[str, Any]) -> str:
    """The action that settings take where none is given: to drop, where they say which or how many pairs are noisy."""
    says = settings.get("preset") or any(settings.get(name) is not None for name in CUTS)
    return "drop" if says or settings.get("rule", AUTO) not in (AUTO, OF_AUTO) else AUTO


def flags_of(settings: Mapping[str, Any]) -> Iterator[str]:
    """The flags of `rmo-curate filter` that ask for these settings, all or some of them: what a preset implies is left
    out, since it would be refused."""
    settings = dict(settings)
    implied = set(PRESETS["paper"]) if settings.get("preset") else set()
    if settings.get("noise_rate") == AUTO:  # of an action that drops or flips
        del settings["noise_rate"]
    for name, value in settings.items():
        nothing = value is None or value is False or value in ([], ())  # 0 is a value
        if nothing or name in implied or (name == "action" and value == own_action(settings)):
            continue
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            yield flag
        else:
            items = value if isinstance(value, list | tuple) else [value]
            yield from (f"{flag} {shlex.quote(str(item))}" for item in items)
