"""The client with blocking calls."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Callable, TypeVar

import httpx

from . import _requests as requests
from ._errors import TransportError
from ._push import Name, Push, Target
from ._results import (
    ChangeResult,
    Connection,
    Group,
    Member,
    OnlineResult,
    PushError,
    PushResult,
    Stats,
    User,
)

T = TypeVar("T")


class Client:
    """A client of the HTTP API of `fdpush serve`.

    The client keeps its connections open between requests. Several threads may use the client. Each method raises ApiError if
    the server refuses the request. Each method raises TransportError if the client gets no complete answer. A process that
    forks must create the client after the fork.
    """

    def __init__(
        self,
        address: str = requests.DEFAULT_ADDRESS,
        key: str = "",
        *,
        timeout: float = requests.DEFAULT_TIMEOUT,
        verify: bool | ssl.SSLContext = True,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Creates a client. The first request opens a connection.

        Args:
            address: `http://HOST:PORT`, `https://HOST:PORT` or `unix:PATH`.
            key: The API key, or "" for a server without keys.
            timeout: The maximum time in seconds without received or sent bytes. A connect takes at most 3 s.
            verify: The TLS context, which has the trusted authorities and the client certificate.
            transport: A transport of httpx that replaces the network connection.
        """
        server = requests.Address.parse(address, key)
        limits = httpx.Limits(keepalive_expiry=requests.KEEP_ALIVE)
        if transport is None:
            transport = httpx.HTTPTransport(verify=verify, limits=limits, uds=server.socket, trust_env=False)
        connect = min(timeout, requests.CONNECT_TIMEOUT_MAX)
        self._http = httpx.Client(
            base_url=server.url,
            headers=server.headers,
            timeout=httpx.Timeout(timeout, connect=connect),
            transport=transport,
            # httpx must not use a proxy from the environment, because the proxy would get the API key.
            trust_env=False,
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self.disconnect()

    def disconnect(self) -> None:
        """Closes the connections to the server."""
        self._http.close()

    def push(self, push: Push) -> PushResult:
        """Sends one message."""
        return self._send(requests.push(push))

    def batch(self, pushes: Iterable[Push], pushes_max: int = 1000) -> Iterator[PushResult | PushError]:
        """Sends many messages, and yields their results in the order of the pushes.

        The method takes pushes from `pushes` only when it needs them, and sends them in requests of at most `pushes_max`
        pushes and 64 KiB. So the memory use does not grow with the number of pushes. Nothing is sent before the iterator is
        iterated. If a request fails, the iterator first yields the results that have arrived, and then raises the exception.
        """
        batch = requests.BatchRequest(pushes_max)
        for push in pushes:
            if not batch.has_room(push):
                yield from self._send_batch(batch)
                batch = requests.BatchRequest(pushes_max)
            batch.add(push)
        yield from self._send_batch(batch)

    def bind(self, fd: int, uid: Name) -> ChangeResult:
        """Sets the uid of a connection. The new uid replaces an earlier uid."""
        return self._send(requests.bind(fd, uid))

    def unbind(self, target: Target) -> ChangeResult:
        """Removes the uid of connections. The connections stay open and stay in their groups."""
        return self._send(requests.unbind(target))

    def join(self, target: Target, groups: Name | Iterable[Name]) -> ChangeResult:
        """Adds connections to groups."""
        return self._send(requests.join(target, groups))

    def leave(self, target: Target, groups: Name | Iterable[Name]) -> ChangeResult:
        """Removes connections from groups."""
        return self._send(requests.leave(target, groups))

    def ungroup(self, groups: Name | Iterable[Name]) -> ChangeResult:
        """Removes all members of groups."""
        return self._send(requests.ungroup(groups))

    def close(self, target: Target, code: int = 1000, reason: str = "") -> int:
        """Closes connections after their queued messages are sent, and returns the number of selected connections.

        `code` is 1000 to 1003, 1007 to 1014 or 3000 to 4999. `reason` has at most 123 bytes.
        """
        return self._send(requests.close(target, code, reason))

    def abort(self, target: Target) -> int:
        """Drops connections immediately, without a close frame, and returns the number of selected connections."""
        return self._send(requests.abort(target))

    def online(self, uids: Iterable[Name]) -> OnlineResult:
        """Returns the connections of users."""
        return self._send(requests.online(uids))

    def is_online(self, uid: Name) -> bool:
        """Returns whether a user has a connection."""
        return not self.online([uid]).offline

    def users(self, after: str | None = None, page_size: int = 1000) -> Iterator[User]:
        """Yields all online users after the uid `after`, in the order of their uids. Reads the list in pages."""
        return self._pages(lambda after: requests.users(after, page_size), after)

    def user_connections(self, uid: Name, after: int | None = None, page_size: int = 1000) -> Iterator[Connection]:
        """Yields the connections of a user. Reads the list in pages. For an offline user, yields nothing."""
        return self._pages(lambda after: requests.user_connections(uid, after, page_size), after)

    def groups(self, after: str | None = None, page_size: int = 1000) -> Iterator[Group]:
        """Yields all groups after the group `after`, in the order of their names. Reads the list in pages."""
        return self._pages(lambda after: requests.groups(after, page_size), after)

    def members(self, group: Name, after: int | None = None, page_size: int = 1000) -> Iterator[Member]:
        """Yields the members of a group. Reads the list in pages."""
        return self._pages(lambda after: requests.members(group, after, page_size), after)

    def member_count(self, group: Name) -> int:
        """Returns the number of members of a group. Members are connections."""
        return self._send(requests.member_count(group))

    def connections(self, after: int | None = None, page_size: int = 1000) -> Iterator[Connection]:
        """Yields all open WebSockets after the fd `after`. Reads the list in pages."""
        return self._pages(lambda after: requests.connections(after, page_size), after)

    def connection(self, fd: int) -> Connection | None:
        """Returns an open WebSocket, or None if the connection has ended."""
        return self._send(requests.connection(fd))

    def attributes(self, fd: int) -> dict[str, Any] | None:
        """Returns the attributes of a connection, or None if the connection has ended."""
        return self._send(requests.attributes("GET", fd, None))

    def set_attributes(self, fd: int, attributes: dict[str, Any]) -> dict[str, Any] | None:
        """Replaces the attributes of a connection. Returns the new attributes, or None if the connection has ended."""
        return self._send(requests.attributes("PUT", fd, attributes))

    def merge_attributes(self, fd: int, attributes: dict[str, Any]) -> dict[str, Any] | None:
        """Merges members into the attributes of a connection (RFC 7386). A value of None removes its member.

        Returns all attributes, or None if the connection has ended.
        """
        return self._send(requests.attributes("PATCH", fd, attributes))

    def stats(self) -> Stats:
        """Returns the statistics of the server."""
        return self._send(requests.stats())

    def is_ready(self) -> bool:
        """Returns whether the server accepts new connections."""
        return self._send(requests.ready())

    def _send_batch(self, batch: requests.BatchRequest) -> Iterator[PushResult | PushError]:
        request = batch.request()
        if request is None:
            return
        failure: TransportError | None = None
        try:
            results = self._send(request)
        except TransportError as error:
            failure, results = error, batch.received(error)
        yield from results
        if failure := failure or batch.missing(results):
            raise failure

    def _pages(
        self, page_after: Callable[[Name | None], requests.Request[requests.Page[T]]], after: Name | None
    ) -> Iterator[T]:
        while True:
            page = self._send(page_after(after))
            yield from page.items
            after = page.next
            if after is None:
                return

    def _send(self, request: requests.Request[T]) -> T:
        received = bytearray()
        try:
            with self._http.stream(
                request.method, request.path, content=request.content, headers={"Content-Type": request.content_type}
            ) as response:
                for piece in response.iter_bytes():
                    received += piece
        except httpx.RequestError as error:
            raise TransportError(f"{self._http.base_url}: {str(error) or type(error).__name__}", bytes(received)) from error
        return request.read(response.status_code, bytes(received))
