"""What a valid request cannot know from its description alone."""

import re
import unicodedata

import schemathesis

# A condition or a key that is empty is none, though a header may be empty.
CONDITIONS = ["If-Match", "If-None-Match", "If-Range", "Range"]

# What these name must be there, and the caller's: random ids are nothing's.
REFERENCES = ["conversation_id", "session_id", "agent_id"]


def whole(value):
    """Repairs integers: 1.0 is one to JSON Schema, not to the server, nor are over 64 bits."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if -(2**63) <= value < 2**64 else value % 2**63
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, list):
        return [whole(item) for item in value]
    if isinstance(value, dict):
        return {name: whole(item) for name, item in value.items()}
    return value


# Names have no invisible or bidirectional characters, which no pattern of the description lists.
NAMES = ["name", "title", "first_name", "last_name", "firstName", "lastName", "key"]
INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\ufff0-\uffff\U000e0000-\U000e0fff]"
)


def visible(text):
    kept = "".join(c for c in INVISIBLE.sub("", text) if unicodedata.category(c)[0] != "C")
    return kept if kept.strip() else "x"


def named(fields):
    for name in NAMES:
        if isinstance(fields.get(name), str) and fields[name]:
            fields[name] = visible(fields[name])


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    headers = case.headers or {}
    for name in CONDITIONS:
        if name in headers and not headers[name]:
            del headers[name]
    # The same key with another request is a mistake, and there are few short keys; a digest is of
    # the body.
    for name in ["Idempotency-Key", "Content-Digest"]:
        headers.pop(name, None)
    query = case.query or {}
    # A cursor is a list's own.
    query.pop("cursor", None)
    if "version" in query:
        query.pop("versions", None)
    case.body = whole(case.body)
    if case.path_parameters:
        named(case.path_parameters)
    if isinstance(case.body, dict):
        named(case.body)
        for name in REFERENCES:
            case.body.pop(name, None)
