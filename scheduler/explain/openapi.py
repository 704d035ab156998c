"""The OpenAPI document of the API, made of the structs that it answers with."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any, Final

import msgspec

from scheduler.explain.fleet_shapes import ClusterAnswer, NodeAnswer, NodeLine
from scheduler.explain.question import MOST_PODS, AskedPod, Changes
from scheduler.explain.shapes import (
    DryRunAnswer,
    ErrorAnswer,
    HostScore,
    PodAnswer,
    PodLine,
    StrategyScores,
)

API_VERSION: Final = "1.1.0"

_REF: Final = "#/components/schemas/{name}"

Json = dict[str, Any]

_NAME: Final = {"type": "string", "minLength": 1}
_ERRORS: Final = {
    "400": "A parameter does not read.",
    "401": "A bearer token is wanted.",
    "403": "The token's owner may not get decisions.gputopo.dev.",
    "404": "There is no such pod or node.",
    "410": "There was a record; it is too old.",
    "421": "Asked for without a token by a name that is not this machine's own.",
    "503": "This replica does not decide, and the one that does is not to be had; "
    "or the API server does not say whose the token is.",
}

_ANYWHERE: Final = ("401", "403", "421", "503")

_SCHEMES: Final = {
    "secret": {
        "type": "http",
        "scheme": "bearer",
        "description": "What stands in explain.token_file.",
    },
    "cluster": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A token of the cluster's for the audience of explain.audience, of an "
        "account that may get decisions.gputopo.dev: kubectl create token ACCOUNT --audience "
        "gputopo-explain.",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "gputopo-session",
        "description": "What signing in to the dashboard gave.",
    },
}


def _in_path(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": _NAME}


def _top(default: int) -> Json:
    return {
        "name": "top",
        "in": "query",
        "required": False,
        "description": "How many nodes.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 10_000, "default": default},
    }


class _Get(msgspec.Struct, frozen=True):
    """One thing to ask for: where, what comes back, and which errors may."""

    path: str
    name: str
    summary: str
    answer: object
    parameters: tuple[Json, ...] = ()
    errors: tuple[str, ...] = ()


_POD: Final = (_in_path("namespace"), _in_path("name"))

_OUTCOME: Final = {
    "name": "outcome",
    "in": "query",
    "required": False,
    "description": "Only these; pending are all that wait, and waiting those of them that "
    "gputopo was not asked about, the oldest first.",
    "schema": {
        "type": "string",
        "enum": ["pending", "waiting", "planned", "refused", "deferred", "bound", "gone"],
    },
}
_LIMIT: Final = {
    "name": "limit",
    "in": "query",
    "required": False,
    "description": "How many at most.",
    "schema": {"type": "integer", "minimum": 1, "maximum": 10_000, "default": 1000},
}

_POD_EXAMPLE: Final = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "train", "annotations": {"gputopo.dev/min-link": "NV"}},
    "spec": {
        "containers": [{"name": "main", "resources": {"limits": {"nvidia.com/gpu": 4}}}],
    },
}

_GETS: Final = (
    _Get(
        "/v1/pods",
        "listPods",
        "The pods that were asked about, the last first.",
        list[PodLine],
        (_OUTCOME, _LIMIT),
        ("400",),
    ),
    _Get(
        "/v1/pods/{namespace}/{name}",
        "getPod",
        "Everything that is known of a pod.",
        PodAnswer,
        (*_POD, _top(10)),
        ("400", "404", "410"),
    ),
    _Get(
        "/v1/pods/{namespace}/{name}/scores",
        "getScores",
        "The best nodes of the pod's last decision, the best first.",
        list[HostScore],
        (*_POD, _top(10)),
        ("400", "404", "410"),
    ),
    _Get(
        "/v1/pods/{namespace}/{name}/strategies",
        "getStrategies",
        "The best nodes of each strategy in the pod's last decision.",
        list[StrategyScores],
        (*_POD, _top(5)),
        ("400", "404", "410"),
    ),
    _Get("/v1/nodes", "listNodes", "All nodes by name.", list[NodeLine]),
    _Get(
        "/v1/nodes/{node}",
        "getNode",
        "One node in full.",
        NodeAnswer,
        (_in_path("node"),),
        ("404",),
    ),
    _Get(
        "/v1/cluster",
        "getCluster",
        "What the cluster has, what is left, and which sets that gives.",
        ClusterAnswer,
    ),
    _Get("/openapi.json", "getDocument", "This document.", dict[str, Any]),
)


_DRY_RUN: Final = _Get(
    "/v1/dry-run",
    "dryRun",
    "Where pods would go, one after the other; nothing is changed by it.",
    DryRunAnswer,
    (_top(10),),
    ("400", "404"),
)


def _question(asked: object, changes: object) -> Json:
    """Return what a dry-run takes: pods as kubectl reads them, or these and changes."""
    pod = {
        "description": "A Pod (core/v1); only what placing it needs is read.",
        "allOf": [
            asked,
            {
                "type": "object",
                "required": ["spec"],
                "properties": {"kind": {"enum": ["Pod"]}},
            },
        ],
    }
    known = {
        "type": "object",
        "description": "A pod that was decided on, as namespace/name: to be decided anew.",
        "required": ["pod"],
        "properties": {"pod": {"type": "string", "pattern": "^[^/]+/[^/]+$"}},
        "additionalProperties": False,
    }
    envelope = {
        "type": "object",
        "required": ["pods"],
        "properties": {
            "pods": {
                "type": "array",
                "minItems": 1,
                "maxItems": MOST_PODS,
                "items": {"anyOf": [pod, known]},
            },
            "changes": changes,
        },
        "additionalProperties": False,
    }
    listed = {
        "type": "object",
        "required": ["kind", "items"],
        "properties": {
            "kind": {"enum": ["List", "PodList"]},
            "items": {"type": "array", "minItems": 1, "maxItems": MOST_PODS, "items": pod},
        },
    }
    content = {"schema": {"anyOf": [pod, envelope, listed]}, "example": _POD_EXAMPLE}
    return {
        "required": True,
        "description": "JSON or YAML, whatever the content type says; YAML may have several pods.",
        "content": {"application/json": content, "application/yaml": content},
    }


@lru_cache(maxsize=1)
def document() -> Json:
    """Return the document."""
    schemas, components = msgspec.json.schema_components(
        [*(get.answer for get in _GETS), DryRunAnswer, AskedPod, Changes, ErrorAnswer],
        ref_template=_REF,
    )
    error = schemas[-1]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "gputopo explain",
            "version": API_VERSION,
            "description": "Why a pod is where it is, why another waits, and what is left.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            **{
                get.path: {"get": _operation(get, schema, error)}
                for get, schema in zip(_GETS, schemas, strict=False)
            },
            _DRY_RUN.path: {
                "post": {
                    **_operation(_DRY_RUN, schemas[-4], error),
                    "requestBody": _question(schemas[-3], schemas[-2]),
                }
            },
        },
        "components": {
            "schemas": components,
            "securitySchemes": _SCHEMES,
        },
        # Who comes over the loopback needs none, where that is trusted.
        "security": [{}, *({name: []} for name in _SCHEMES)],
    }


def _operation(get: _Get, schema: object, error: object) -> Json:
    answers: Json = {"200": {"description": get.summary, "content": _content(schema)}}
    for status in sorted({*get.errors, *_ANYWHERE}):
        answers[status] = {"description": _ERRORS[status], "content": _content(error)}
    operation: Json = {"operationId": get.name, "summary": get.summary, "responses": answers}
    if get.parameters:
        operation["parameters"] = list(get.parameters)
    return operation


def _content(schema: object) -> Json:
    return {"application/json": {"schema": schema}}


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(document()), indent=2) + b"\n")
