"""A JSON schema of config files, with which editors complete and check them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from dssm_core import families
from dssm_core.config.config import Config
from dssm_core.config.members import FAMILIES

JsonSchema = dict[str, Any]


def json_schema() -> JsonSchema:
    """The schema of a config file. No setting is required: a file may extend another one."""
    schema = Config.model_json_schema(ref_template="#/$defs/{model}")
    definitions: JsonSchema = schema.pop("$defs")
    for name in ("Member", "Named"):
        definitions.pop(name)
    properties = schema["properties"]
    for path, family in FAMILIES.items():
        *parents, name = path.split(".")
        section = definitions[parents[0].capitalize()]["properties"] if parents else properties
        members = [_member(path, kind, family, definitions) for kind in family]
        if path == "evaluation.baselines":
            for member in members:
                member["properties"]["name"] = {"type": "string"}
            listed = {"anyOf": [{"enum": list(family)}, *members]}
            choice: JsonSchema = {"type": "array", "items": listed}
        else:
            choice = {"anyOf": members}
        if path == "item_tower":
            choice["anyOf"].append({"type": "null"})
        section[name] = {"description": section[name].get("description", ""), **choice}
    properties["extends"] = {
        "type": "string",
        "description": "Another config file, relative to this one, over which this one is laid.",
    }
    for part in (schema, *definitions.values()):
        part.pop("required", None)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "A config of dssm",
        "$defs": definitions,
    }


def schema_text() -> str:
    """The schema as the file configs/schema.json holds it."""
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"


def _member(path: str, kind: str, family: Mapping[str, str], definitions: JsonSchema) -> JsonSchema:
    """The schema of one member. The models inside it are added to `definitions`."""
    model: type[BaseModel] = families.load(family, kind)
    prefix = f"{path}.{kind}"
    member = model.model_json_schema(ref_template=f"#/$defs/{prefix}.{{model}}")
    for name, definition in member.pop("$defs", {}).items():
        definitions[f"{prefix}.{name}"] = definition
    member.pop("required", None)
    member["title"] = kind
    member["properties"] = {"kind": {"const": kind}, **_without_kind(member.get("properties", {}))}
    return member


def _without_kind(properties: JsonSchema) -> JsonSchema:
    return {name: value for name, value in properties.items() if name != "kind"}
