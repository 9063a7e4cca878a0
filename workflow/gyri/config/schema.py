"""The JSON schema of a configuration file, generated from the types of the configuration."""

from __future__ import annotations

import ast
import inspect
import itertools
from collections.abc import Iterator
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from gyri.config.base import Settings
from gyri.config.load import Config


def schema() -> dict[str, Any]:
    """The JSON schema of a configuration file."""
    found = Config.model_json_schema(schema_generator=_Described)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


class _Described(GenerateJsonSchema):
    """Takes the string below a setting as its description; here, since pydantic would read every source file in every job."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """The schema of one group of settings."""
        found = super().model_schema(schema)
        described = {name: text for kind in reversed(schema["cls"].__mro__) for name, text in _descriptions(kind)}
        for name, setting in found["properties"].items():
            if name in described:
                setting["description"] = described[name]
        return found


def _descriptions(kind: type) -> Iterator[tuple[str, str]]:
    """The settings of a class, not those of its bases, each with the string that follows it."""
    if not issubclass(kind, Settings):
        return
    body = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(body, ast.ClassDef)
    for item, after in itertools.pairwise(body.body):
        if not (isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and isinstance(after, ast.Expr)):
            continue
        if isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            yield item.target.id, inspect.cleandoc(after.value.value)
