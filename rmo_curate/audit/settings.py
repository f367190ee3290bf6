"""What a user can ask of `rmo-curate audit`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from rmo_curate.audit.gates import parse_gate
from rmo_curate.evidence.columns import EvidenceColumns
from rmo_curate.read.column_map import ColumnMap, column_map
from rmo_train.console.settings import from_recipe


class AuditSettings(EvidenceColumns):
    """Settings of `rmo-curate audit`."""

    worst: int = Field(5000, ge=0, description="Maximum number of pairs listed on the page, worst first")
    characters: int = Field(4000, ge=1, description="Characters shown of each prompt and answer")
    examples: int = Field(3, ge=0, description="Rejected records shown for each reason")
    against: tuple[str, ...] = Field((), description="Held-out data to check for shared prompts; repeatable")
    fail_on: tuple[str, ...] = Field(
        (),
        description="Exit with code 4 if a number of audit.json meets this condition, such as "
        "'length_bias>0.8'; repeatable",
    )
    baseline: str | None = Field(None, description="Earlier audit.json to compare with")
    limit: int | None = Field(None, ge=1, description="Use only the first N input records; for data, not for a run")
    max_length: int | None = Field(
        None,
        ge=8,
        description="Maximum tokens per pair, prompt + longer answer; longer pairs count as too long; "
        "for data, not for a run (default: no limit)",
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
        description="Run folder made by `score`, or data as `score` takes them: files, folders or "
        "hf:owner/name[:split]",
        argument="RUN or DATA",
    )
    out: Path = from_recipe("audit.out", description="Folder for report.html and audit.json")
    map: ColumnMap = column_map()
