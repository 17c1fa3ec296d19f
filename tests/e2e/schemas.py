"""The schemas that the server publishes, made strict: in a test every field has to be described."""

import functools
import json
import urllib.request

import jsonschema_rs
import server


@functools.cache
def description():
    """`/openapi.json` of the server that most tests use."""
    running, _ = server.shared()
    with urllib.request.urlopen(f"{running.url}/openapi.json", timeout=30) as answer:
        return json.load(answer)


def strict(schema):
    """A copy in which objects hold nothing but what they name."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    copy = {name: strict(inner) for name, inner in schema.items()}
    named = isinstance(copy.get("properties"), dict) and copy.get("type") == "object"
    if named and "additionalProperties" not in copy:
        copy["additionalProperties"] = False
    return copy


@functools.cache
def validator(name):
    """Checks a value against one of the published schemas."""
    components = strict(description()["components"])
    root = {"$ref": f"#/components/schemas/{name}", "components": components}
    return jsonschema_rs.validator_for(root)


ANSWERS = {"added": "WsAdded", "pong": "WsPong", "status": "WsStatus"}


def wrong(name, value):
    """What is wrong with a value, in words; nothing where it fits."""
    if name == "WsMessage":
        name = ANSWERS.get(value.get("type"), "Event")
    if name == "Event":
        # Of all alternatives the one that it claims to be says best what is wrong.
        known = description()["components"]["schemas"]["Event"]["discriminator"]["mapping"]
        kind = value.get("type")
        if kind not in known:
            return [f"no schema for {kind!r}"]
        name = known[kind].rsplit("/", 1)[1]
    errors = validator(name).iter_errors(value)
    return [f"{name} at {'/'.join(map(str, error.instance_path))}: {error.message[:300]}" for error in errors]
