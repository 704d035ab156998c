"""The rules of CDI for a file, as a JSON schema of our own and checks that no schema can state."""

from __future__ import annotations

import re
from typing import Any

import jsonschema

_TEXT = {"type": "string", "minLength": 1}
_TEXTS = {"type": "array", "items": {"type": "string"}}
_PATH = {"type": "string", "pattern": "^/"}


def _object(needed: list[str], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": needed,
        "additionalProperties": False,
    }


_EDITS = _object(
    [],
    env={"type": "array", "items": {"type": "string", "pattern": "^[^=]+="}},
    deviceNodes={
        "type": "array",
        "items": _object(
            ["path"],
            path=_PATH,
            hostPath=_PATH,
            permissions={"type": "string", "pattern": "^[rwm]+$"},
        ),
    },
    mounts={
        "type": "array",
        "items": _object(
            ["hostPath", "containerPath"], hostPath=_PATH, containerPath=_PATH, options=_TEXTS
        ),
    },
    hooks={
        "type": "array",
        "items": _object(
            ["hookName", "path"],
            hookName={
                "enum": [
                    "prestart",
                    "createRuntime",
                    "createContainer",
                    "startContainer",
                    "poststart",
                    "poststop",
                ]
            },
            path=_PATH,
            args=_TEXTS,
        ),
    },
)

SCHEMA = _object(
    ["cdiVersion", "kind", "devices"],
    cdiVersion={"type": "string", "pattern": r"^[0-9]+\.[0-9]+\.[0-9]+$"},
    kind={
        "type": "string",
        "pattern": "^[A-Za-z][-_.A-Za-z0-9]*[A-Za-z0-9]/[A-Za-z][-_.A-Za-z0-9]*$",
    },
    devices={
        "type": "array",
        "minItems": 1,
        "items": _object(["name", "containerEdits"], name=_TEXT, containerEdits=_EDITS),
    },
    containerEdits=_EDITS,
)

_NAME = re.compile(r"[A-Za-z0-9]([-_.:A-Za-z0-9]*[A-Za-z0-9])?")


def check(spec: dict[str, Any]) -> None:
    """Fail unless a runtime would take the file."""
    jsonschema.validate(spec, SCHEMA)
    names = [device["name"] for device in spec["devices"]]
    assert len(set(names)) == len(names)
    assert all(_NAME.fullmatch(name) for name in names)
    version = tuple(map(int, spec["cdiVersion"].split(".")))
    assert version >= needed_version(spec)


def needed_version(spec: dict[str, Any]) -> tuple[int, ...]:
    """Return the version that the content needs at least."""
    edits = [spec.get("containerEdits", {}), *(one["containerEdits"] for one in spec["devices"])]
    needs = [(0, 3, 0)]
    if "." in spec["kind"].split("/")[1]:
        needs.append((0, 6, 0))
    if any("hostPath" in node for one in edits for node in one.get("deviceNodes", [])):
        needs.append((0, 5, 0))
    if any(device["name"][0].isdigit() for device in spec["devices"]):
        needs.append((0, 5, 0))
    return max(needs)
