"""The client for asyncio and trio."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterable, AsyncIterator, Iterable
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


class AsyncClient:
    """A client of the HTTP API of `fdpush serve`.

    The client keeps its connections open between requests. Several tasks of one event loop may use the client. Each method
    raises ApiError if the server refuses the request. Each method raises TransportError if the client gets no complete
    answer. A process that forks must create the client after the fork.
    """

    def __init__(
        self,
        address: str = requests.DEFAULT_ADDRESS,
        key: str = "",
        *,
        timeout: float = requests.DEFAULT_TIMEOUT,
        verify: bool | ssl.SSLContext = True,
        transport: httpx.AsyncBaseTransport | None = None,
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
            transport = httpx.AsyncHTTPTransport(verify=verify, limits=limits, uds=server.socket, trust_env=False)
        connect = min(timeout, requests.CONNECT_TIMEOUT_MAX)
        self._http = httpx.AsyncClient(
            base_url=server.url,
            headers=server.headers,
            timeout=httpx.Timeout(timeout, connect=connect),
            transport=transport,
            # httpx must not use a proxy from the environment, because the proxy would get the API key.
            trust_env=False,
        )

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.disconnect()

    async def disconnect(self) -> None:
        """Closes the connections to the server."""
        await self._http.aclose()

    async def push(self, push: Push) -> PushResult:
        """Sends one message."""
        return await self._send(requests.push(push))

    async def batch(
        self, pushes: Iterable[Push] | AsyncIterable[Push], pushes_max: int = 1000
    ) -> AsyncIterator[PushResult | PushError]:
        """Sends many messages, and yields their results in the order of the pushes.

        The method takes pushes from `pushes` only when it needs them, and sends them in requests of at most `pushes_max`
        pushes and 64 KiB. So the memory use does not grow with the number of pushes. Nothing is sent before the iterator is
        iterated. If a request fails, the iterator first yields the results that have arrived, and then raises the exception.
        """
        batch = requests.BatchRequest(pushes_max)
        async for push in _each(pushes):
            if not batch.has_room(push):
                async for result in self._send_batch(batch):
                    yield result
                batch = requests.BatchRequest(pushes_max)
            batch.add(push)
        async for result in self._send_batch(batch):
            yield result

    async def bind(self, fd: int, uid: Name) -> ChangeResult:
        """Sets the uid of a connection. The new uid replaces an earlier uid."""
        return await self._send(requests.bind(fd, uid))

    async def unbind(self, target: Target) -> ChangeResult:
        """Removes the uid of connections. The connections stay open and stay in their groups."""
        return await self._send(requests.unbind(target))

    async def join(self, target: Target, groups: Name | Iterable[Name]) -> ChangeResult:
        """Adds connections to groups."""
        return await self._send(requests.join(target, groups))

    async def leave(self, target: Target, groups: Name | Iterable[Name]) -> ChangeResult:
        """Removes connections from groups."""
        return await self._send(requests.leave(target, groups))

    async def ungroup(self, groups: Name | Iterable[Name]) -> ChangeResult:
        """Removes all members of groups."""
        return await self._send(requests.ungroup(groups))

    async def close(self, target: Target, code: int = 1000, reason: str = "") -> int:
        """Closes connections after their queued messages are sent, and returns the number of selected connections.

        `code` is 1000 to 1003, 1007 to 1014 or 3000 to 4999. `reason` has at most 123 bytes.
        """
        return await self._send(requests.close(target, code, reason))

    async def abort(self, target: Target) -> int:
        """Drops connections immediately, without a close frame, and returns the number of selected connections."""
        return await self._send(requests.abort(target))

    async def online(self, uids: Iterable[Name]) -> OnlineResult:
        """Returns the connections of users."""
        return await self._send(requests.online(uids))

    async def is_online(self, uid: Name) -> bool:
        """Returns whether a user has a connection."""
        return not (await self.online([uid])).offline

    def users(self, after: str | None = None, page_size: int = 1000) -> AsyncIterator[User]:
        """Yields all online users after the uid `after`, in the order of their uids. Reads the list in pages."""
        return self._pages(lambda after: requests.users(after, page_size), after)

    def user_connections(self, uid: Name, after: int | None = None, page_size: int = 1000) -> AsyncIterator[Connection]:
        """Yields the connections of a user. Reads the list in pages. For an offline user, yields nothing."""
        return self._pages(lambda after: requests.user_connections(uid, after, page_size), after)

    def groups(self, after: str | None = None, page_size: int = 1000) -> AsyncIterator[Group]:
        """Yields all groups after the group `after`, in the order of their names. Reads the list in pages."""
        return self._pages(lambda after: requests.groups(after, page_size), after)

    def members(self, group: Name, after: int | None = None, page_size: int = 1000) -> AsyncIterator[Member]:
        """Yields the members of a group. Reads the list in pages."""
        return self._pages(lambda after: requests.members(group, after, page_size), after)

    async def member_count(self, group: Name) -> int:
        """Returns the number of members of a group. Members are connections."""
        return await self._send(requests.member_count(group))

    def connections(self, after: int | None = None, page_size: int = 1000) -> AsyncIterator[Connection]:
        """Yields all open WebSockets after the fd `after`. Reads the list in pages."""
        return self._pages(lambda after: requests.connections(after, page_size), after)

    async def connection(self, fd: int) -> Connection | None:
        """Returns an open WebSocket, or None if the connection has ended."""
        return await self._send(requests.connection(fd))

    async def attributes(self, fd: int) -> dict[str, Any] | None:
        """Returns the attributes of a connection, or None if the connection has ended."""
        return await self._send(requests.attributes("GET", fd, None))

    async def set_attributes(self, fd: int, attributes: dict[str, Any]) -> dict[str, Any] | None:
        """Replaces the attributes of a connection. Returns the new attributes, or None if the connection has ended."""
        return await self._send(requests.attributes("PUT", fd, attributes))

    async def merge_attributes(self, fd: int, attributes: dict[str, Any]) -> dict[str, Any] | None:
        """Merges members into the attributes of a connection (RFC 7386). A value of None removes its member.

        Returns all attributes, or None if the connection has ended.
        """
        return await self._send(requests.attributes("PATCH", fd, attributes))

    async def stats(self) -> Stats:
        """Returns the statistics of the server."""
        return await self._send(requests.stats())

    async def is_ready(self) -> bool:
        """Returns whether the server accepts new connections."""
        return await self._send(requests.ready())

    async def _send_batch(self, batch: requests.BatchRequest) -> AsyncIterator[PushResult | PushError]:
        request = batch.request()
        if request is None:
            return
        failure: TransportError | None = None
        try:
            results = await self._send(request)
        except TransportError as error:
            failure, results = error, batch.received(error)
        for result in results:
            yield result
        if failure := failure or batch.missing(results):
            raise failure

    async def _pages(
        self, page_after: Callable[[Name | None], requests.Request[requests.Page[T]]], after: Name | None
    ) -> AsyncIterator[T]:
        while True:
            page = await self._send(page_after(after))
            for item in page.items:
                yield item
            after = page.next
            if after is None:
                return

    async def _send(self, request: requests.Request[T]) -> T:
        received = bytearray()
        try:
            async with self._http.stream(
                request.method, request.path, content=request.content, headers={"Content-Type": request.content_type}
            ) as response:
                async for piece in response.aiter_bytes():
                    received += piece
        except httpx.RequestError as error:
            raise TransportError(f"{self._http.base_url}: {str(error) or type(error).__name__}", bytes(received)) from error
        return request.read(response.status_code, bytes(received))


async def _each(items: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
