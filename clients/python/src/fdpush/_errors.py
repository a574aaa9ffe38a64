"""The exceptions of the client."""

from __future__ import annotations


class FdpushError(Exception):
    """The base class of all exceptions of this client, except the exceptions for invalid arguments."""


class TransportError(FdpushError):
    """A request got no complete answer from the server.

    The server may or may not have executed the command. A repeated push may be delivered twice.
    """

    def __init__(self, message: str, received: bytes = b"") -> None:
        super().__init__(message, received)
        self.message = message
        #: The part of the answer's body that arrived.
        self.received = received

    def __str__(self) -> str:
        return self.message


class ApiError(FdpushError):
    """An error in the answer of the server. A refused command has no effect.

    `message` is a text for people. Programs should use `code`.
    """

    def __init__(self, status: int, code: str, message: str, id: str | int | float | None = None) -> None:
        super().__init__(status, code, message, id)
        #: The HTTP status.
        self.status = status
        #: The code of the error, such as `bad_request`. Empty if the answer is not from fdpush.
        self.code = code
        self.message = message
        #: The `id` of the push, or None if the push has no `id`.
        self.id = id

    def __str__(self) -> str:
        return f"{self.status} {self.code}: {self.message}"


class WebhookError(FdpushError):
    """The exception for a webhook request that the back end must refuse."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message, status)
        self.message = message
        #: The HTTP status of the answer: 401 for an invalid signature or time, 400 for a malformed body.
        self.status = status

    def __str__(self) -> str:
        return self.message
