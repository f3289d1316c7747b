"""What a valid request cannot know from its description alone."""

import schemathesis

# A condition or a key that is empty is none, though a header may be empty.
CONDITIONS = ["If-Match", "If-None-Match", "If-Range", "Range"]

# What these name must be there, and the caller's: random ids are nothing's.
REFERENCES = ["conversation_id", "session_id", "agent_id"]


def whole(value):
    """To JSON Schema 1.0 is an integer; to the server it is none. Integers beyond 64 bits are refused."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if -(2**63) <= value < 2**64 else value % 2**63
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, list):
        return [whole(item) for item in value]
    if isinstance(value, dict):
        return {name: whole(item) for name, item in value.items()}
    return value


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    headers = case.headers or {}
    for name in CONDITIONS:
        if name in headers and not headers[name]:
            del headers[name]
    # The same key with another request is a mistake, and there are few short keys; a digest is of the body.
    for name in ["Idempotency-Key", "Content-Digest"]:
        headers.pop(name, None)
    query = case.query or {}
    # A cursor is a list's own.
    query.pop("cursor", None)
    if "version" in query:
        query.pop("versions", None)
    case.body = whole(case.body)
    if isinstance(case.body, dict):
        for name in REFERENCES:
            case.body.pop(name, None)
