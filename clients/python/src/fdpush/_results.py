"""The results of the API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._json import JsonObject


@dataclass(frozen=True)
class PushResult:
    """The result of an executed push. `matched` is `queued` plus `dropped`."""

    #: The number of connections that the target selects, without the excluded connections.
    matched: int
    #: The number of connections whose queue has the message.
    queued: int
    #: The number of connections that do not get the message, because they read too slowly.
    dropped: int
    #: The uids of the target that have no connection.
    offline: list[str]
    #: The `id` of the push, or None.
    id: str | int | float | None = None

    @staticmethod
    def read(answer: JsonObject) -> PushResult:
        return PushResult(
            matched=answer.integer("matched"),
            queued=answer.integer("queued"),
            dropped=answer.integer("dropped"),
            offline=answer.texts("offline"),
            id=answer.id(),
        )


@dataclass(frozen=True)
class PushError:
    """The error of one push in a batch. The push has no effect. The server executes the other pushes of the batch."""

    #: The code of the error, such as `bad_request`.
    code: str
    #: The error message, a text for people.
    message: str
    #: The `id` of the push, or None.
    id: str | int | float | None = None

    @staticmethod
    def read(answer: JsonObject) -> PushError:
        error = answer.object("error")
        return PushError(code=error.text("code"), message=error.text("message"), id=answer.id())


@dataclass(frozen=True)
class ChangeResult:
    """The result of a command that changes uids or groups of connections."""

    #: The number of selected connections.
    matched: int
    #: The number of connections that the command changed.
    changed: int

    @staticmethod
    def read(answer: JsonObject) -> ChangeResult:
        return ChangeResult(matched=answer.integer("matched"), changed=answer.integer("changed"))


@dataclass(frozen=True)
class OnlineResult:
    """The connections of several users."""

    #: The fds of each online uid.
    online: dict[str, list[int]]
    #: The uids without a connection.
    offline: list[str]

    @staticmethod
    def read(answer: JsonObject) -> OnlineResult:
        online = answer.object("online")
        return OnlineResult({uid: online.integers(uid) for uid in online.members}, answer.texts("offline"))


@dataclass(frozen=True)
class User:
    """An online uid in a list of users."""

    uid: str
    #: The number of connections of the uid.
    connections: int

    @staticmethod
    def read(answer: JsonObject) -> User:
        return User(answer.text("uid"), answer.integer("connections"))


@dataclass(frozen=True)
class Group:
    """A group in a list of groups."""

    name: str
    #: The number of members of the group. Members are connections.
    count: int

    @staticmethod
    def read(answer: JsonObject) -> Group:
        return Group(answer.text("group"), answer.integer("count"))


@dataclass(frozen=True)
class Member:
    """A connection in a list of members of a group."""

    fd: int
    #: The uid, or None for an anonymous connection.
    uid: str | None

    @staticmethod
    def read(answer: JsonObject) -> Member:
        return Member(answer.integer("fd"), answer.optional_text("uid"))


@dataclass(frozen=True)
class Tls:
    """The TLS session of a connection."""

    #: The version, such as `1.3`.
    version: str
    #: The cipher suite.
    cipher: str

    @staticmethod
    def read(answer: JsonObject) -> Tls:
        return Tls(answer.text("version"), answer.text("cipher"))


@dataclass(frozen=True)
class Connection:
    """An open WebSocket."""

    fd: int
    #: The uid, or None for an anonymous connection.
    uid: str | None
    groups: list[str]
    #: The remote address of the socket: `ADDRESS:PORT` or `unix`.
    peer: str
    #: The address of the client, not of a trusted proxy. None is possible if `peer` is `unix`.
    address: str | None
    #: The time of the connect, in milliseconds since 1970.
    connected_at_ms: int
    connected_for_ms: int
    #: The time since the client last sent bytes, in milliseconds.
    idle_for_ms: int
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int
    #: The number of bytes in the queue of the connection.
    queued_bytes: int
    #: The TLS session, or None for a connection without TLS.
    tls: Tls | None

    @staticmethod
    def read(answer: JsonObject) -> Connection:
        tls = answer.optional_object("tls")
        return Connection(
            fd=answer.integer("fd"),
            uid=answer.optional_text("uid"),
            groups=answer.texts("groups"),
            peer=answer.text("peer"),
            address=answer.optional_text("address"),
            connected_at_ms=answer.integer("connected_at_ms"),
            connected_for_ms=answer.integer("connected_for_ms"),
            idle_for_ms=answer.integer("idle_for_ms"),
            messages_in=answer.integer("messages_in"),
            messages_out=answer.integer("messages_out"),
            bytes_in=answer.integer("bytes_in"),
            bytes_out=answer.integer("bytes_out"),
            queued_bytes=answer.integer("queued_bytes"),
            tls=None if tls is None else Tls.read(tls),
        )


@dataclass(frozen=True)
class Stats:
    """Statistics of the server."""

    version: str
    uptime_ms: int
    is_draining: bool
    #: The number of open WebSockets.
    open: int
    #: The number of online uids.
    users: int
    #: The number of groups with members.
    groups: int
    #: The number of all connections, including connections to the API.
    connections: int
    connections_max: int
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int
    queued_bytes: int
    #: The number of messages that slow readers did not get.
    dropped: int
    #: Every member of the answer, by its name in the API.
    all: dict[str, Any]

    @staticmethod
    def read(answer: JsonObject) -> Stats:
        return Stats(
            version=answer.text("version"),
            uptime_ms=answer.integer("uptime_ms"),
            is_draining=answer.boolean("is_draining"),
            open=answer.integer("open"),
            users=answer.integer("users"),
            groups=answer.integer("groups"),
            connections=answer.integer("connections"),
            connections_max=answer.integer("connections_max"),
            messages_in=answer.integer("messages_in"),
            messages_out=answer.integer("messages_out"),
            bytes_in=answer.integer("bytes_in"),
            bytes_out=answer.integer("bytes_out"),
            queued_bytes=answer.integer("queued_bytes"),
            dropped=answer.integer("dropped"),
            all=answer.members,
        )
