"""Generates an OpenAPI description of the two endpoints from what Gradio reports about them.

Gradio's own description includes uploads and calls that bypass the queue, which are both disabled here. A call has two
steps. POST the arguments in order as `data` to get an `event_id`. Then GET the answer of that event as a stream of
server-sent events; the last one is `complete` or `error`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

PREFIX = "/gradio_api/call"
_EVENT = {
    "name": "event_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"},
}
_STARTED = {
    "type": "object",
    "required": ["event_id"],
    "properties": {"event_id": {"type": "string"}},
}


def openapi_document(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return OpenAPI 3.1 from `Blocks.get_api_info()`: all named endpoints with the types and defaults of arguments."""
    paths: dict[str, Any] = {}
    for name, endpoint in sorted(info["named_endpoints"].items()):
        verb = name.strip("/")
        paths[f"{PREFIX}/{verb}"] = {"post": _call(verb, endpoint)}
        paths[f"{PREFIX}/{verb}/{{event_id}}"] = {"get": _answer(verb, endpoint)}
    about = {
        "title": "llmrec",
        "version": version("llmrec"),
        "description": "Recommendations and conversation over one catalogue: no item is answered that is not in it.",
    }
    return {"openapi": "3.1.0", "info": about, "paths": paths}


def _call(verb: str, endpoint: Mapping[str, Any]) -> dict[str, Any]:
    arguments = [_argument(one) for one in endpoint["parameters"]]
    needed = sum("default" not in one for one in arguments)
    data = {
        "type": "array",
        "prefixItems": arguments,
        "minItems": needed,
        "maxItems": len(arguments),
        "description": ", ".join(one["title"] for one in arguments),
    }
    body = {"type": "object", "required": ["data"], "properties": {"data": data}}
    return {
        "operationId": f"{verb}_call",
        "summary": str(endpoint.get("description") or f"Ask {verb}").strip().splitlines()[0],
        "description": str(endpoint.get("description") or "").strip(),
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            "200": {"description": "The call is in the queue.", "content": {"application/json": {"schema": _STARTED}}},
            "404": {"description": "No such endpoint."},
            "413": {"description": "The body is too large."},
        },
    }


def _answer(verb: str, endpoint: Mapping[str, Any]) -> dict[str, Any]:
    stream = {"schema": {"type": "string"}, "x-event-data": [_schema(one.get("type")) for one in endpoint["returns"]]}
    text = "`event: complete` carries the answer in a list; `event: error` a message, when the arguments were wrong."
    return {
        "operationId": f"{verb}_answer",
        "summary": f"The answer of a call of {verb}, once.",
        "parameters": [_EVENT],
        "responses": {"200": {"description": text, "content": {"text/event-stream": stream}}},
    }


def _argument(parameter: Mapping[str, Any]) -> dict[str, Any]:
    schema = {"title": str(parameter["parameter_name"]), **_schema(parameter.get("type"))}
    if parameter.get("parameter_has_default"):
        schema["default"] = parameter.get("parameter_default")
    return schema


def _schema(kind: object) -> dict[str, Any]:
    """Return the JSON schema if Gradio knows one, otherwise the empty schema, which allows anything."""
    return dict(kind) if isinstance(kind, Mapping) and "type" in kind else {}
