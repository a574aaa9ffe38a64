"""Verifies and reads the requests that the server sends to a back end."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, TypeVar

from ._errors import WebhookError
from ._json import JsonObject, Malformed

T = TypeVar("T")


@dataclass(frozen=True)
class Event:
    """One event of the server."""

    #: The number of the event in this run of the server: 1, 2, 3 and so on.
    seq: int
    #: `open`, `message`, `send`, `close`, `online` or `offline`. Later versions may add types.
    type: str
    #: The time of the event, in milliseconds since 1970.
    time_ms: int
    #: The fd of the connection, or None for an event of a uid.
    fd: int | None
    #: The uid, or None for an anonymous connection.
    uid: str | None
    #: Every member of the event, by its name, such as `text` or `code`.
    members: dict[str, Any]

    @staticmethod
    def read(event: JsonObject) -> Event:
        return Event(
            seq=event.integer("seq"),
            type=event.text("type"),
            time_ms=event.integer("time_ms"),
            fd=event.optional_integer("fd"),
            uid=event.optional_text("uid"),
            members=event.members,
        )


@dataclass(frozen=True)
class EventBatch:
    """The events of one webhook request, in order."""

    #: The name of the server.
    node: str
    #: The identifier of the server's run. Each start of the server has a new identifier.
    run: str
    #: The time of the request, in milliseconds since 1970.
    sent_ms: int
    #: The number of events that the server has given up since its start.
    given_up: int
    events: list[Event]

    @staticmethod
    def read(body: JsonObject) -> EventBatch:
        return EventBatch(
            node=body.text("node"),
            run=body.text("run"),
            sent_ms=body.integer("sent_ms"),
            given_up=body.integer("given_up"),
            events=[Event.read(event) for event in body.objects("events")],
        )


@dataclass(frozen=True)
class ConnectRequest:
    """A request of the connect hook: the upgrade of a client.

    The back end answers 200 with a JSON object, such as `{"uid":"10010"}`, or a status from 400 to 499.
    """

    #: The name of the server.
    node: str
    fd: int
    #: The remote address of the socket: `ADDRESS:PORT` or `unix`.
    peer: str
    #: The client's address, or None if `peer` is `unix`.
    address: str | None
    method: str
    #: The request target, such as `/chat?room=7`, not decoded.
    target: str
    #: The values of each header, whose name is in lower case. A value that is not UTF-8 is `bytes`.
    headers: dict[str, list[str | bytes]]

    def header(self, name: str) -> str | bytes | None:
        """Returns the value of a header, or None if the request has no value or several values of this header."""
        values = self.headers.get(name.lower(), [])
        return values[0] if len(values) == 1 else None

    @staticmethod
    def read(body: JsonObject) -> ConnectRequest:
        values = body.object("headers")
        headers: dict[str, list[str | bytes]] = {name: [*values.texts(name)] for name in values.members}
        encoded = body.optional_object("headers_base64") or JsonObject({})
        for name in encoded.members:
            try:
                headers.setdefault(name, []).extend(base64.b64decode(value, validate=True) for value in encoded.texts(name))
            except binascii.Error as error:
                raise Malformed("a header is not base64") from error
        return ConnectRequest(
            node=body.text("node"),
            fd=body.integer("fd"),
            peer=body.text("peer"),
            address=body.optional_text("address"),
            method=body.text("method"),
            target=body.text("target"),
            headers=headers,
        )


class WebhookVerifier:
    """Verifies signatures in constant time, and reads the bodies of valid requests."""

    def __init__(self, secrets: str | Sequence[str], tolerance: float = 300) -> None:
        """Creates a verifier.

        Args:
            secrets: The secret `webhook_secret`. During a rotation, the old and the new secret.
            tolerance: The maximum difference between the time of an event request and the current time, in seconds.
        """
        secrets = [secrets] if isinstance(secrets, str) else list(secrets)
        # Without a secret, anyone could compute the signature.
        if not secrets or "" in secrets:
            raise ValueError("the webhook secret is empty")
        self._secrets = [secret.encode() for secret in secrets]
        self._tolerance = tolerance

    def events(self, body: bytes, signature: str | None, now: float | None = None) -> EventBatch:
        """Verifies and reads a request with events.

        Args:
            body: The raw body.
            signature: The header `X-Fdpush-Signature`, or None.
            now: The current time in seconds since 1970. With None, the time of the clock.

        Raises:
            WebhookError: The signature is invalid, the request is too old, or the body is malformed.
        """
        batch = self._read(body, signature, EventBatch.read)
        difference = abs(batch.sent_ms / 1000 - (time.time() if now is None else now))
        if difference > self._tolerance:
            text = "the time of the request differs from the current time by"
            raise WebhookError(f"{text} {difference:.0f} s (limit {self._tolerance:g} s)", 401)
        return batch

    def connect(self, body: bytes, signature: str | None) -> ConnectRequest:
        """Verifies and reads a request of the connect hook.

        A request of the connect hook has no timestamp, because the request has no side effects.

        Raises:
            WebhookError: The signature is invalid, or the body is malformed.
        """
        return self._read(body, signature, ConnectRequest.read)

    def verify(self, body: bytes, signature: str | None) -> None:
        """Verifies the signature of a body in constant time.

        Raises:
            WebhookError: The signature is invalid.
        """
        received = (signature or "").encode(errors="surrogateescape")
        is_valid = False
        for secret in self._secrets:
            expected = b"sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest().encode()
            is_valid = hmac.compare_digest(expected, received) or is_valid
        if not is_valid:
            raise WebhookError("the signature is missing or invalid", 401)

    def _read(self, body: bytes, signature: str | None, read: Callable[[JsonObject], T]) -> T:
        self.verify(body, signature)
        try:
            return read(JsonObject.parse(body))
        except Malformed as error:
            raise WebhookError(str(error), 400) from error
