"""Runs `fdpush serve`. Each test of the API runs with `Client` and with `AsyncClient`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from gateway import KEY, TIMEOUT, Gateway

import fdpush


class BlockingClient:
    """Calls the methods of an AsyncClient from a blocking test. For an asynchronous generator, returns a list of its items."""

    def __init__(self, client: fdpush.AsyncClient, portal: BlockingPortal) -> None:
        self._client = client
        self._portal = portal

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*values: Any, **named: Any) -> Any:
            async def run() -> Any:
                result = method(*values, **named)
                return await result if inspect.isawaitable(result) else [item async for item in result]

            return self._portal.call(run)

        return call


class Clients:
    """Creates clients of one kind, blocking or asynchronous. `disconnect` closes their connections."""

    def __init__(self, portal: BlockingPortal | None) -> None:
        self._portal = portal
        self._clients: list[Any] = []

    def create(self, address: str, key: str = KEY, timeout: float = TIMEOUT, **options: Any) -> Any:
        if self._portal is None:
            client: Any = fdpush.Client(address, key, timeout=timeout, **options)
        else:
            client = BlockingClient(fdpush.AsyncClient(address, key, timeout=timeout, **options), self._portal)
        self._clients.append(client)
        return client

    @property
    def is_async(self) -> bool:
        return self._portal is not None

    def disconnect(self) -> None:
        for client in self._clients:
            client.disconnect()


@pytest.fixture(params=["sync", "async"])
def clients(request: pytest.FixtureRequest) -> Iterator[Clients]:
    if request.param == "sync":
        clients = Clients(None)
        yield clients
        clients.disconnect()
    else:
        with start_blocking_portal() as portal:
            clients = Clients(portal)
            yield clients
            clients.disconnect()


class Server:
    """A running server. The fixture closes its WebSockets after the test."""

    def __init__(self, *flags: str) -> None:
        self.gateway = Gateway(*flags)
        self.api: str = self.gateway.api
        self._sockets: list[Any] = []

    def connect(self, target: str = "/") -> Any:
        socket = self.gateway.connect(target)
        self._sockets.append(socket)
        return socket

    def stop(self) -> None:
        for socket in self._sockets:
            socket.socket.shutdown()
        assert self.gateway.stop() == 0


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def client(server: Server, clients: Clients) -> Any:
    return clients.create(server.api)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
