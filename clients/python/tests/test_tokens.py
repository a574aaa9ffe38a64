"""Tests tokens against a server that verifies them."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator

import pytest
import websocket
from conftest import Server
from gateway import KEY, TIMEOUT

from fdpush import Client, TokenIssuer

SECRET = "a-secret-of-at-least-thirty-two-bytes"


@pytest.fixture
def verifying_server() -> Iterator[Server]:
    server = Server("--auth", "jwt", "--jwt-secret", SECRET, "--jwt-issuer", "shop", "--jwt-audience", "push")
    yield server
    server.stop()


def test_the_server_accepts_the_token(verifying_server: Server) -> None:
    issuer = TokenIssuer(SECRET, "shop", "push")
    with Client(verifying_server.api, KEY, timeout=TIMEOUT) as client:
        socket = verifying_server.connect("/?token=" + issuer.issue("张三", ttl=59.5, groups=["room", 7]))
        connection = client.connection(socket.fd)
        assert connection is not None
        assert (connection.uid, sorted(connection.groups)) == ("张三", ["7", "room"])
        socket = verifying_server.connect("/?token=" + issuer.issue(10010))
        assert socket.welcome["uid"] == "10010"


def test_the_server_refuses_other_tokens(verifying_server: Server) -> None:
    issuer = TokenIssuer(SECRET, "shop", "push")
    for token in (
        TokenIssuer(SECRET[::-1], "shop", "push").issue("a"),
        TokenIssuer(SECRET, "another", "push").issue("a"),
        TokenIssuer(SECRET, "shop").issue("a"),
        issuer.issue("a", ttl=60, now=time.time() - 120),
        issuer.issue("a") + "x",
    ):
        with pytest.raises(websocket.WebSocketBadStatusException) as refused:
            verifying_server.connect(f"/?token={token}")
        assert refused.value.status_code == 401


def test_the_parts_of_a_token() -> None:
    token = TokenIssuer(SECRET.encode()).issue("a", ttl=10, now=1789000000.9)
    head, claims, signature = (base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in token.split("."))
    assert json.loads(head) == {"typ": "JWT", "alg": "HS256"}
    assert json.loads(claims) == {"sub": "a", "iat": 1789000000, "exp": 1789000010}
    assert len(signature) == 32 and "=" not in token


def test_invalid_arguments_are_refused() -> None:
    issuer = TokenIssuer(SECRET)
    for call in (
        lambda: TokenIssuer("too short"),
        lambda: issuer.issue(""),
        lambda: issuer.issue("x" * 129),
        lambda: issuer.issue("\ud800"),
        lambda: issuer.issue("a", ttl=0),
        lambda: issuer.issue("a", groups=[""]),
        lambda: issuer.issue("a", groups=range(1001)),
    ):
        with pytest.raises(ValueError) as refused:
            call()
        assert SECRET not in str(refused.value)
