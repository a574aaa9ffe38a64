"""Encodes JSON as the server requires, and gives typed access to JSON objects from the server."""

from __future__ import annotations

import json
from typing import Any


def encode(value: object) -> str:
    """Encodes a value.

    Raises ValueError for a float that JSON cannot represent, and for a text that UTF-8 cannot represent.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # This call raises ValueError for a lone surrogate, which UTF-8 cannot represent.
    text.encode()
    return text


class Malformed(ValueError):
    """A text from the server does not have the documented form."""


class JsonObject:
    """A JSON object. Each method checks the type of a member.

    Unknown members are ignored, because later versions of the server may add members.
    """

    def __init__(self, members: dict[str, Any]) -> None:
        self.members = members

    @staticmethod
    def parse(text: str | bytes) -> JsonObject:
        try:
            return _object(json.loads(text))
        # json.loads raises RecursionError for deeply nested JSON.
        except (ValueError, RecursionError) as error:
            raise Malformed(f"expected a JSON object: {error}") from error

    def integer(self, name: str) -> int:
        value = self.members.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        raise Malformed(f'the member "{name}" must be an integer')

    def optional_integer(self, name: str) -> int | None:
        return None if self.members.get(name) is None else self.integer(name)

    def boolean(self, name: str) -> bool:
        value = self.members.get(name)
        if isinstance(value, bool):
            return value
        raise Malformed(f'the member "{name}" must be a boolean')

    def text(self, name: str) -> str:
        value = self.members.get(name)
        if isinstance(value, str):
            return value
        raise Malformed(f'the member "{name}" must be a string')

    def optional_text(self, name: str) -> str | None:
        return None if self.members.get(name) is None else self.text(name)

    def texts(self, name: str) -> list[str]:
        values = self.array(name)
        if all(isinstance(value, str) for value in values):
            return values
        raise Malformed(f'the member "{name}" must be an array of strings')

    def integers(self, name: str) -> list[int]:
        values = self.array(name)
        if all(isinstance(value, int) for value in values):
            return values
        raise Malformed(f'the member "{name}" must be an array of integers')

    def id(self) -> str | int | float | None:
        """Returns the `id` of a push, or None."""
        value = self.members.get("id")
        return value if isinstance(value, (str, int, float)) else None

    def object(self, name: str) -> JsonObject:
        return _object(self.members.get(name))

    def optional_object(self, name: str) -> JsonObject | None:
        return None if self.members.get(name) is None else self.object(name)

    def objects(self, name: str) -> list[JsonObject]:
        return [_object(value) for value in self.array(name)]

    def array(self, name: str) -> list[Any]:
        value = self.members.get(name)
        if isinstance(value, list):
            return value
        raise Malformed(f'the member "{name}" must be an array')


def _object(value: object) -> JsonObject:
    if isinstance(value, dict):
        return JsonObject(value)
    raise Malformed("expected a JSON object")
