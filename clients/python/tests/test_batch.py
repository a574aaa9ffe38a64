"""Tests batches with both clients: order, laziness, memory, failures."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from conftest import Clients, Server
from gateway import KEY, TIMEOUT

from fdpush import ApiError, AsyncClient, Client, Push, PushError, PushResult, Target, TransportError


def test_results_are_in_order(server: Server, client: Any) -> None:
    receiver = server.connect("/?uid=a")
    pushes = [
        Push(Target.uid("a"), text="1"),
        Push(Target.uid(""), text="2", id="two"),
        Push(Target.uid("b"), text="3", id=3),
        Push(Target.uid("a"), text="4\n"),
    ]
    first, invalid, offline, last = client.batch(pushes, pushes_max=3)
    assert first == last == PushResult(1, 1, 0, [])
    assert offline == PushResult(0, 0, 0, ["b"], 3)
    assert isinstance(invalid, PushError) and (invalid.code, invalid.id) == ("bad_request", "two")
    assert "1 to 128 bytes" in invalid.message
    assert [receiver.next(), receiver.next()] == ["1", "4\n"]


class Counted:
    """Yields pushes and counts the yielded pushes."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.taken = 0

    def __iter__(self) -> Iterator[Push]:
        for index in range(self.count):
            self.taken += 1
            yield Push(Target.uid("offline"), text="x", id=index)


def test_pushes_are_taken_only_when_needed(server: Server) -> None:
    pushes = Counted(25)
    with Client(server.api, KEY, timeout=TIMEOUT) as client:
        results = client.batch(pushes, pushes_max=10)
        assert pushes.taken == 0, "nothing is sent before the iterator is iterated"
        for index, result in enumerate(results):
            assert result.id == index
            # A request of 10 pushes is sent when the client has taken the 11th push.
            assert pushes.taken == min(25, index // 10 * 10 + 11)
        assert index == 24


@pytest.mark.anyio
async def test_pushes_of_an_asynchronous_generator(server: Server) -> None:
    pushes = Counted(25)

    async def generate() -> AsyncIterator[Push]:
        for push in pushes:
            yield push

    async with AsyncClient(server.api, KEY, timeout=TIMEOUT) as client:
        index = 0
        async for result in client.batch(generate(), pushes_max=10):
            assert result.id == index
            assert pushes.taken == min(25, index // 10 * 10 + 11)
            index += 1
        assert index == 25


def test_memory_is_bounded(server: Server) -> None:
    push = Push(Target.uid("offline"), text="x" * 16_000)
    with Client(server.api, KEY, timeout=TIMEOUT) as client:
        # The first request loads modules and opens the connection.
        assert len(list(client.batch([push]))) == 1
        tracemalloc.start()
        try:
            pushes = (Push(Target.uid("offline"), text="x" * 16_000) for _ in range(500))
            assert sum(1 for _ in client.batch(pushes)) == 500
            assert tracemalloc.get_traced_memory()[1] < 2 << 20, "8 MB of pushes use at most 2 MiB"
        finally:
            tracemalloc.stop()


def test_a_large_push_has_its_own_request(client: Any) -> None:
    pushes = [Push(Target.uid("offline"), text="x" * size) for size in (1, 400_000, 2 << 20, 1)]
    outcomes = [result.code if isinstance(result, PushError) else result.matched for result in client.batch(pushes)]
    assert outcomes == [0, 0, "too_large", 0]


def test_answers_longer_than_the_socket_buffers(client: Any) -> None:
    uids = [str(number).ljust(100, "x") for number in range(9000)]
    results = list(client.batch([Push(Target.uids(uids), text="x")] * 4))
    assert [result.offline for result in results] == [uids] * 4


def test_without_pushes_nothing_is_sent(clients: Clients) -> None:
    assert list(clients.create("127.0.0.1:1").batch([])) == []


def test_a_refused_request_raises(server: Server, clients: Clients) -> None:
    with pytest.raises(ApiError):
        list(clients.create(server.api, "wrong-key").batch([Push(Target.all(), text="x")]))


def test_a_request_of_zero_pushes_is_refused(client: Any) -> None:
    with pytest.raises(ValueError):
        list(client.batch([], pushes_max=0))


ANSWERS = b'{"id":1,"matched":1,"queued":1,"dropped":0,"offline":[]}\n{"id":2,"mat'


class EndingStream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A response body that is incomplete. Raises an error after its last byte if `fails` is true."""

    def __init__(self, fails: bool) -> None:
        self.fails = fails

    def __iter__(self) -> Iterator[bytes]:
        yield ANSWERS
        if self.fails:
            raise httpx.ReadError("the connection ended")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


@pytest.mark.parametrize("fails", [True, False])
def test_results_before_a_failure_are_yielded(fails: bool) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=EndingStream(fails)))
    ids = []
    with pytest.raises(TransportError), Client("http://test", transport=transport) as client:
        for result in client.batch([Push(Target.all(), text="x"), Push(Target.all(), text="y")]):
            ids.append(result.id)
    assert ids == [1]


@pytest.mark.anyio
@pytest.mark.parametrize("fails", [True, False])
async def test_results_before_a_failure_are_yielded_by_the_asynchronous_client(fails: bool) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=EndingStream(fails)))
    ids = []
    with pytest.raises(TransportError):
        async with AsyncClient("http://test", transport=transport) as client:
            async for result in client.batch([Push(Target.all(), text="x"), Push(Target.all(), text="y")]):
                ids.append(result.id)
    assert ids == [1]
