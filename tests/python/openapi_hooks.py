"""Hooks of Schemathesis for `test_openapi.py`: the formats of openapi.json, and a record of the answers.

Schemathesis imports this module. The environment variable `ANSWERS` is the path of the record.
"""

import atexit
import json
import os

import schemathesis
from hypothesis import strategies

# A surrogate is no character of UTF-8.
CHARACTERS = strategies.characters(codec="utf-8")

statuses = {}


def texts(characters_min, bytes_max, length=lambda text: len(text.encode())):
    """Returns a strategy for texts whose length in bytes is limited."""
    texts = strategies.text(CHARACTERS, min_size=characters_min, max_size=bytes_max)
    return texts.filter(lambda text: length(text) <= bytes_max)


schemathesis.openapi.format("name", texts(1, 128))
schemathesis.openapi.format("close-reason", texts(0, 123))
schemathesis.openapi.format("id", texts(0, 128, length=lambda text: len(json.dumps(text))))


@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    return {"data": value if isinstance(value, bytes) else str(value).encode()}


def with_integers(value):
    """Replaces floats without a fraction by integers, because the server refuses `3.0` where the document has an integer."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [with_integers(item) for item in value]
    if isinstance(value, dict):
        # The members `data` and `id` stay unchanged, because their numbers need not be integers.
        return {name: item if name in ("data", "id") else with_integers(item) for name, item in value.items()}
    return value


@schemathesis.hook
def map_body(context, body):
    return body if "attributes" in context.operation.path else with_integers(body)


@schemathesis.hook
def after_call(context, case, response):
    place = f"{response.request.method} {case.operation.path}"
    counts = statuses.setdefault(place, {})
    counts[response.status_code] = counts.get(response.status_code, 0) + 1


@atexit.register
def write_statuses():
    with open(os.environ["ANSWERS"], "w", encoding="utf-8") as file:
        json.dump(statuses, file)
