"""Tests the verifier with requests of a server, and with changed requests."""

from __future__ import annotations

import hashlib
import hmac
import queue
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from gateway import TIMEOUT, Gateway

from fdpush import WebhookError, WebhookVerifier

SECRET = "the-webhook-secret-of-this-test"
EMPTY = b'{"node":"n","run":"r","sent_ms":1789000000000,"given_up":0,"events":[]}'


def sign(body: bytes, secret: str = SECRET) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


class BackEnd:
    """An HTTP server that answers each request with one JSON text, and stores the requests."""

    def __init__(self, answer: bytes) -> None:
        self.requests: queue.Queue[tuple[bytes, str | None]] = queue.Queue()
        requests = self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                requests.put((body, self.headers.get("X-Fdpush-Signature")))
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *values: Any) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def next(self) -> tuple[bytes, str | None]:
        return self.requests.get(timeout=TIMEOUT)

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def back_end() -> Iterator[BackEnd]:
    back_end = BackEnd(b'{"uid":"10010"}')
    yield back_end
    back_end.stop()


def test_events_of_a_server(back_end: BackEnd) -> None:
    gateway = Gateway("--webhook", back_end.url, "--webhook-secret", SECRET, "--node", "n1")
    try:
        client = gateway.connect("/chat?uid=10010")
        batch = WebhookVerifier(SECRET).events(*back_end.next())
        assert (batch.node, batch.given_up) == ("n1", 0)
        event = batch.events[0]
        assert (event.seq, event.type, event.fd, event.uid, event.members["path"]) == (1, "open", client.fd, "10010", "/chat")
        assert event.time_ms <= batch.sent_ms
        client.socket.shutdown()
    finally:
        assert gateway.stop() == 0


def test_the_connect_hook_of_a_server(back_end: BackEnd) -> None:
    gateway = Gateway("--auth", "webhook", "--auth-url", back_end.url, "--webhook-secret", SECRET)
    try:
        client = gateway.connect("/chat?room=7")
        assert client.welcome["uid"] == "10010"
        request = WebhookVerifier(SECRET).connect(*back_end.next())
        assert (request.method, request.target, request.fd, request.address) == ("GET", "/chat?room=7", client.fd, "127.0.0.1")
        assert (request.header("Upgrade"), request.header("cookie")) == ("websocket", None)
        client.socket.shutdown()
    finally:
        assert gateway.stop() == 0


@pytest.mark.parametrize(
    ("body", "signature"),
    [
        (EMPTY + b" ", sign(EMPTY)),
        (EMPTY, None),
        (EMPTY, ""),
        (EMPTY, sign(EMPTY)[:-1]),
        (EMPTY, sign(EMPTY) + "0"),
        (EMPTY, sign(EMPTY).upper()),
        (EMPTY, sign(EMPTY)[len("sha256=") :]),
        (EMPTY, sign(EMPTY, "another secret")),
        (EMPTY, "sha256=ü"),
        (EMPTY, "\udcff"),
        (EMPTY, "sha1=" + hmac.new(SECRET.encode(), EMPTY, hashlib.sha1).hexdigest()),
    ],
)
def test_a_changed_body_or_signature_is_refused(body: bytes, signature: str | None) -> None:
    assert WebhookVerifier(SECRET).events(EMPTY, sign(EMPTY), now=1789000000).node == "n"
    with pytest.raises(WebhookError) as refused:
        WebhookVerifier(SECRET).events(body, signature, now=1789000000)
    assert refused.value.status == 401


def test_an_old_request_is_refused() -> None:
    verifier = WebhookVerifier(SECRET, tolerance=60)
    for difference in (-60, 60):
        assert verifier.events(EMPTY, sign(EMPTY), now=1789000000 + difference).events == []
    for now in (1789000000 - 61, 1789000000 + 61, None):
        with pytest.raises(WebhookError, match=r"by \d+ s \(limit 60 s\)") as refused:
            verifier.events(EMPTY, sign(EMPTY), now=now)
        assert refused.value.status == 401


def test_two_secrets_during_a_rotation() -> None:
    verifier = WebhookVerifier(["the old secret", SECRET])
    verifier.verify(b"{}", sign(b"{}"))
    verifier.verify(b"{}", sign(b"{}", "the old secret"))
    with pytest.raises(WebhookError):
        verifier.verify(b"{}", sign(b"{}", ""))


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"node":1}', b"\xff", EMPTY.replace(b"1789000000000", b'"1"'), b"[" * 100_000]
)
def test_a_malformed_body_with_a_valid_signature_is_refused(body: bytes) -> None:
    with pytest.raises(WebhookError) as refused:
        WebhookVerifier(SECRET).events(body, sign(body))
    assert refused.value.status == 400


def test_header_values_that_are_not_utf_8() -> None:
    body = (
        b'{"node":"n","fd":1,"peer":"unix","address":null,"method":"GET","target":"/",'
        b'"headers":{"a":["1","2"],"b":["3"]},"headers_base64":{"cookie":["bmFtZT3Vxcj9"]}}'
    )
    request = WebhookVerifier(SECRET).connect(body, sign(body))
    assert request.headers["a"] == ["1", "2"]
    assert [request.header(name) for name in ("A", "B", "Cookie")] == [None, "3", b"name=\xd5\xc5\xc8\xfd"]


@pytest.mark.parametrize("secrets", ["", [], ["a", ""]])
def test_an_empty_secret_is_refused(secrets: str | list[str]) -> None:
    with pytest.raises(ValueError):
        WebhookVerifier(secrets)
