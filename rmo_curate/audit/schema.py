"""The JSON Schema of audit.json, told from `Report`: docs/audit.schema.json is what `published` gives.

python -m rmo_curate.audit.schema > docs/audit.schema.json
"""

from __future__ import annotations

import json
import sys
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from rmo_curate.audit.contents import SCHEMA, Report


class Nullable(GenerateJsonSchema):
    """A number that is not known (NaN) is null in audit.json."""

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        return {"type": ["number", "null"]}


def published() -> dict[str, Any]:
    schema = TypeAdapter(Report).json_schema(schema_generator=Nullable, mode="serialization")
    schema["properties"]["schema"] = {"const": SCHEMA}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA, **schema}


if __name__ == "__main__":
    json.dump(published(), sys.stdout, indent=1, sort_keys=True)
    sys.stdout.write("\n")
