"""What a user can ask of `rmo-curate audit`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from rmo_curate.audit.gates import parse_gate
from rmo_curate.evidence.columns import EvidenceColumns
from rmo_curate.read.column_map import ColumnMap, column_map
from rmo_train.console.settings import from_recipe

USUAL_MAX_LENGTH = 1024  # tokens of prompt + longer answer that trainers cut at where nothing else is asked for


class AuditSettings(EvidenceColumns):
    """Settings of `rmo-curate audit`."""

    worst: int = Field(5000, ge=0, description="Maximum number of pairs listed on the page, worst first")
    characters: int = Field(4000, ge=1, description="Characters shown of each prompt and answer; the rest is counted")
    examples: int = Field(3, ge=0, description="Rejects shown for each reason")
    against: tuple[str, ...] = Field((), description="Held-out data that must share no prompt with these; repeatable")
    fail_on: tuple[str, ...] = Field(
        (), description="Exit with code 4 if a number of audit.json is beyond this limit: 'length_bias>0.8'; repeatable"
    )
    baseline: str | None = Field(None, description="An earlier audit.json: say what changed since")
    limit: int | None = Field(None, ge=1, description="On data, use only the first N input records")
    max_length: int | None = Field(
        None,
        ge=8,
        description="On data, tokens of prompt + longer answer above which a pair is too long (default: 1024, where "
        "trainers commonly cut)",
    )

    @field_validator("fail_on")
    @classmethod
    def _readable(cls, gates: tuple[str, ...]) -> tuple[str, ...]:
        for gate in gates:
            parse_gate(gate)
        return gates


class AuditCommand(AuditSettings):
    """`rmo-curate audit`."""

    data: tuple[str, ...] = from_recipe(
        "score.out",
        description="A run folder made by `score`; or data: files or folders, or hf:owner/name[:split], as `score` "
        "takes them",
        argument="RUN or DATA",
    )
    out: Path = from_recipe("audit.out", description="Folder for report.html and audit.json")
    map: ColumnMap = column_map()
