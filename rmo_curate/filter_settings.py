"""What a user can ask of `rmo-curate filter`, and the presets that ask it for them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from rmo_curate.rules import RULES, get_rule
from rmo_train.errors import UserError
from rmo_train.settings import Settings, flag_of

# Each preset gives a value to everything that decides which pairs go. `authors-code` cuts at a constant range, not
# at a quantile (see `decisions.authors_range`), so its low_q is 0: no quantile is used.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"rule": "rmo", "margin": "logp", "low_q": 0.1, "high_q": 0.0, "hard": False},
    "authors-code": {"rule": "rmo", "margin": "logp", "low_q": 0.0, "high_q": 0.0, "hard": True},
}


class FilterSettings(Settings):
    """Settings of the filter, resolved: what a preset or `--rule none` implies stands in the fields."""

    low_q: float = Field(
        default=0.1,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Drop about this share of pairs as ambiguous, those whose margin is nearest 0; 0 drops none "
        "(with --rule none, 0 unless given)",
    )
    high_q: float = Field(
        default=0.95,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Drop as noisy the pairs above this quantile of suspicion, where it is positive; 1 drops none",
    )
    rule: str = Field(default="irm", description=f"Rule of suspicion: {', '.join(RULES)}")
    margin: Literal["reward", "logp", "mean_logp"] = Field(
        default="reward", description="Margin that tells ambiguous pairs"
    )
    preset: Literal["paper", "authors-code"] | None = Field(
        default=None,
        description="Set rule, margin and quantiles together, as the paper or its authors' script has them",
    )
    hard: bool = Field(default=False, description="Cut ambiguous pairs at the quantile, instead of sampling around it")
    proxy: str | None = Field(
        default=None, description="Checkpoint of the run that ends the trajectory (default: its own choice)"
    )
    seed: int = Field(default=42, description="Seed of the draws that decide on ambiguous pairs")

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, given: Any) -> Any:
        """Fill in what a preset sets, and refuse a flag that the preset excludes."""
        if not isinstance(given, dict):
            return given
        name = given.get("preset")
        if isinstance(name, str) and name in PRESETS:
            preset = PRESETS[name]
            clashes = [flag_of(field) for field in preset if field in given]
            if clashes:
                raise UserError(
                    f"--preset {name} sets {', '.join(flag_of(field) for field in preset)} together, and "
                    f"{', '.join(clashes)} is given as well; leave out one or the other"
                )
            return given | preset
        if given.get("rule") == "none":
            return {"low_q": 0.0} | given
        return given

    @field_validator("rule")
    @classmethod
    def _known_rule(cls, rule: str) -> str:
        return get_rule(rule).name
