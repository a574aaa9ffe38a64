"""Tests each call of the API against a server, with both clients."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pickle
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import Clients, Server
from gateway import KEY
from server_process import ServerProcess

from fdpush import (
    ApiError,
    ChangeResult,
    FdpushError,
    Group,
    Member,
    OnlineResult,
    Push,
    PushResult,
    Target,
    TransportError,
    User,
)


def test_each_content_arrives(server: Server, client: Any) -> None:
    receiver = server.connect("/?uid=10010")
    data = {"text": "你好", "list": [], "price": 1.0}
    assert client.push(Push(Target.uid(10010), data=data, id=7)) == PushResult(1, 1, 0, [], 7)
    assert json.loads(receiver.next()) == {"type": "message", "data": data}
    client.push(Push(Target.uid("10010"), text='raw "text"'))
    assert receiver.next() == 'raw "text"'
    client.push(Push(Target.fd(receiver.fd), binary=b"\x00\xff"))
    assert receiver.next() == b"\x00\xff"
    client.push(Push(Target.all(), data=None, key="score", compress=False))
    assert receiver.next() == '{"type":"message","all":true,"data":null}'


def test_each_target_and_exclusion(server: Server, client: Any) -> None:
    a, b = server.connect("/?uid=a"), server.connect("/?uid=5")
    client.join(Target.uid("a"), ["room", 7])
    client.join(Target.uids([5]), "room")
    targets = [
        (Target.uids(["a", 5, "offline"]), 2),
        (Target.fds([a.fd, b.fd, 9999]), 2),
        (Target.group("room"), 2),
        (Target.group(7), 1),
        (Target.groups(["room", "7"]), 2),
        (Target.uids([]), 0),
        (Target.all(), 2),
    ]
    for target, matched in targets:
        assert client.push(Push(target, text="x")).matched == matched, target
    assert client.push(Push(Target.uids(["a", "offline"]), text="x")).offline == ["offline"]
    for excluded in (
        Target.fd(a.fd),
        Target.fds([a.fd]),
        Target.uid("a"),
        Target.uids(["a"]),
        Target.group(7),
        Target.groups(["7"]),
    ):
        assert client.push(Push(Target.all(), text="x", exclude=[excluded])).matched == 1, excluded
    assert client.push(Push(Target.all(), text="x", exclude=[Target.fd(a.fd), Target.uid(5)])).matched == 0


def test_uids_and_groups_change(server: Server, client: Any) -> None:
    fd = server.connect().fd
    assert client.bind(fd, 10010) == ChangeResult(1, 1)
    target = Target.uid("10010")
    assert client.join(target, ["a", "b"]).changed == 1
    assert client.join(target, "a").changed == 0
    assert sorted(client.connection(fd).groups) == ["a", "b"]
    assert client.leave(target, "a").changed == 1
    assert client.ungroup(["b"]).changed == 1
    assert client.connection(fd).groups == []
    assert client.unbind(Target.fds([fd])).changed == 1
    assert client.connection(fd).uid is None
    assert client.bind(9999, "a") == ChangeResult(0, 0)


def test_close_and_abort(server: Server, client: Any) -> None:
    a, b = server.connect("/?uid=a"), server.connect("/?uid=b")
    client.push(Push(Target.uid("a"), text="last"))
    assert client.close(Target.uid("a"), 4000, "signed out") == 1
    assert a.next() == "last"
    assert a.closed() == (4000, "signed out")
    assert client.close(Target.uid("a")) == 0
    assert client.abort(Target.fd(b.fd)) == 1
    assert b.socket.sock.recv(1) == b""


def test_queries(server: Server, client: Any) -> None:
    a, b, c = server.connect("/?uid=a"), server.connect("/?uid=7"), server.connect("/?uid=7")
    names = ["..", "a/b%+ ü", "room"]
    client.join(Target.fds([a.fd, b.fd]), names)
    online = client.online(["a", 7, "offline"])
    online.online["7"].sort()
    assert online == OnlineResult({"a": [a.fd], "7": [b.fd, c.fd]}, ["offline"])
    assert client.is_online(7) and not client.is_online("offline")

    assert list(client.users()) == [User("7", 2), User("a", 1)]
    assert list(client.users(after="7")) == [User("a", 1)]
    assert list(client.groups(page_size=1)) == [Group(name, 2) for name in names]
    for name in names:
        assert list(client.members(name)) == [Member(a.fd, "a"), Member(b.fd, "7")]
        assert client.member_count(name) == 2
    assert list(client.members("none")) == [] and client.member_count("none") == 0

    assert [connection.fd for connection in client.connections()] == [a.fd, b.fd, c.fd]
    assert [connection.fd for connection in client.connections(page_size=1)] == [a.fd, b.fd, c.fd]
    assert [connection.fd for connection in client.connections(after=b.fd)] == [c.fd]
    assert [connection.fd for connection in client.user_connections(7, page_size=1)] == [b.fd, c.fd]
    assert list(client.user_connections("offline")) == []

    connection = client.connection(a.fd)
    assert (connection.uid, connection.address, connection.tls, connection.messages_in) == ("a", "127.0.0.1", None, 0)
    assert sorted(connection.groups) == names and connection.peer.startswith("127.0.0.1:")
    assert client.connection(9999) is None

    stats = client.stats()
    assert (stats.open, stats.users, stats.groups, stats.is_draining) == (3, 2, 3, False)
    assert stats.all["version"] == stats.version
    assert client.is_ready()
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.open = 0


def test_attributes(server: Server, client: Any) -> None:
    fd = server.connect().fd
    assert client.attributes(fd) == {}
    assert client.set_attributes(fd, {"theme": "dark", "draft": "x"}) == {"theme": "dark", "draft": "x"}
    assert client.merge_attributes(fd, {"draft": None}) == {"theme": "dark"}
    assert client.set_attributes(fd, {}) == {}
    assert client.attributes(9999) is None
    assert client.set_attributes(9999, {"a": 1}) is None
    assert client.merge_attributes(9999, {"a": 1}) is None


def test_an_error_has_its_status_code_and_message(server: Server, client: Any, clients: Clients) -> None:
    with pytest.raises(ApiError, match="1 to 128 bytes") as refused:
        client.push(Push(Target.uid(""), text="x", id="mine"))
    error = refused.value
    assert (error.status, error.code, error.id) == (400, "bad_request", "mine")
    assert str(error) == f"400 bad_request: {error.message}"
    assert pickle.loads(pickle.dumps(error)).code == "bad_request"
    with pytest.raises(ApiError) as refused:
        clients.create(server.api, "wrong-key").stats()
    assert (refused.value.status, refused.value.code) == (401, "unauthorized")
    assert "wrong-key" not in str(refused.value)
    assert clients.create(server.api, "").is_ready(), "/readyz needs no key"


def test_a_request_without_an_answer(clients: Clients) -> None:
    # A bound socket that does not listen refuses connections, and no other process can take its port.
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(TransportError) as failed:
            clients.create(address, "secret-key").stats()
        assert str(failed.value).startswith(f"{address}: ") and "secret-key" not in str(failed.value)
        bound.listen()
        with pytest.raises(FdpushError) as late:
            clients.create(address, "secret-key", timeout=0.01).stats()
        assert str(late.value).removeprefix(f"{address}: ") and "secret-key" not in str(late.value)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"version":1}', b"", b"\xff", b"[" * 100_000])
def test_an_answer_that_is_not_from_fdpush(clients: Clients, body: bytes) -> None:
    client = clients.create("http://test", transport=httpx.MockTransport(lambda _: httpx.Response(200, content=body)))
    with pytest.raises(TransportError, match="the answer is not from fdpush") as failed:
        client.stats()
    assert failed.value.received == body


@pytest.mark.parametrize("status", [404, 502])
def test_an_error_that_is_not_from_fdpush(clients: Clients, status: int) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(status, content=b"<html>"))
    with pytest.raises(ApiError) as refused:
        clients.create("http://test", transport=transport).connection(1)
    assert (refused.value.status, refused.value.code) == (status, "")


def test_one_connection_serves_all_requests(client: Any) -> None:
    before = client.stats().all["accepted"]
    for _ in range(20):
        client.is_online("a")
    list(client.batch([Push(Target.uid("a"), text="x")]))
    assert client.stats().all["accepted"] == before


@contextlib.contextmanager
def serving(*flags: str) -> Iterator[str]:
    """Runs a server whose API has the address in `flags`. Yields this address."""
    process = ServerProcess("--listen", "127.0.0.1:0", "--page", "never", "--log", "info", *flags, keys=KEY)
    try:
        yield process.api_line.split()[-1]
    finally:
        assert process.stop() == 0


def test_a_unix_socket(clients: Clients, tmp_path: Path) -> None:
    with serving("--api", f"unix:{tmp_path}/api.sock") as address:
        assert clients.create(address).stats().open == 0


def test_tls(clients: Clients, tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = [os.environ["FDPUSH_BIN"], "cert", "--for", "127.0.0.1", "--out", str(tmp_path)]
    subprocess.run([*command, "--cert-file", "cert.pem", "--key-file", "key.pem"], check=True, capture_output=True)
    with serving("--api", "tls:127.0.0.1:0", "--tls-cert", str(certificate), "--tls-key", str(key)) as address:
        address = address.replace("tls:", "https://") if address.startswith("tls:") else f"https://{address}"
        assert clients.create(address, verify=ssl.create_default_context(cafile=certificate)).stats().open == 0
        with pytest.raises(TransportError):
            clients.create(address).stats()


def test_invalid_arguments_are_refused_before_the_request(clients: Clients) -> None:
    for call in (
        lambda: clients.create("ftp://127.0.0.1"),
        lambda: clients.create("http://user:password@127.0.0.1"),
        lambda: clients.create("http://127.0.0.1/path"),
        lambda: clients.create("http://127.0.0.1", "key\r\nX: y"),
        lambda: Push(Target.all()),
        lambda: Push(Target.all(), text="x", data=1),
        lambda: Push(Target.all(), text="\ud800"),
        lambda: Push(Target.all(), data=float("nan")),
        lambda: Push(Target.all(), text="x", exclude=[Target.all()]),
        lambda: clients.create("http://test").join(Target.group("a"), "b"),
    ):
        with pytest.raises(ValueError) as refused:
            call()
        assert "password" not in str(refused.value)
    with pytest.raises(TypeError):
        Target.uids("10010")
