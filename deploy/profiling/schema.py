"""The JSON Schema of saved runs.

``python -m dsconvert.deploy.profiling.schema > docs/schema/FILE``.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any

import msgspec

from .records import Measurement


def measurement_schema() -> str:
    """Return the schema of what ``dsconvert profile --json`` prints: a list of measurements."""
    schema: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    schema |= msgspec.json.schema(list[Measurement])
    for record in schema["$defs"].values():  # from Python 3.13 on, docstrings are not indented
        if "description" in record:
            record["description"] = inspect.cleandoc(record["description"])
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode() + "\n"


if __name__ == "__main__":
    sys.stdout.write(measurement_schema())
