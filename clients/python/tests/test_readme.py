"""Runs each program of the README against a server."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from conftest import Server
from gateway import KEY, TIMEOUT

SECRET = "the-webhook-secret-of-this-test"


def program(text: str) -> str:
    """Returns the only program of the README that contains a text."""
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    [found] = [block for block in re.findall(r"(?ms)^```python\n(.*?)^```$", readme) if text in block]
    return found


def run(source: str, server: Server | None = None, **environment: str) -> str:
    if server is not None:
        source = source.replace("127.0.0.1:9502", server.api)
    environment = {**os.environ, "FDPUSH_KEY": KEY, **environment}
    done = subprocess.run(
        [sys.executable, "-"], input=source, env=environment, capture_output=True, text=True, timeout=5 * TIMEOUT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_push(server: Server) -> None:
    assert run(program("client.push(Push(Target.uid"), server) == "offline\n"
    receiver = server.connect("/?uid=10010")
    assert run(program("client.push(Push(Target.uid"), server) == "queued\n"
    assert receiver.message() == {"type": "message", "data": {"text": "hello"}}


def test_asynchronous_push(server: Server) -> None:
    receiver = server.connect("/?uid=10010")
    assert run(program("AsyncClient("), server) == "10010 1\n"
    assert receiver.next() == "raw text"


def test_batch(server: Server) -> None:
    receiver = server.connect("/?uid=10010")
    assert run(program(".batch("), server) == "10010 1\n10011 0\n"
    assert receiver.message() == {"type": "message", "data": {"unread": 3}}


def test_webhook() -> None:
    event = {"seq": 1, "type": "open", "time_ms": 0, "fd": 3, "uid": None}
    body = json.dumps({"node": "n", "run": "r", "sent_ms": int(time.time() * 1000), "given_up": 0, "events": [event]})
    signature = "sha256=" + hmac.new(SECRET.encode(), body.encode(), hashlib.sha256).hexdigest()
    source = (
        program("WebhookVerifier(")
        + f"""
import io
body = {body.encode()!r}
for signature in ({signature!r}, "sha256=0"):
    environ = {{"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body)), "HTTP_X_FDPUSH_SIGNATURE": signature}}
    print(application(environ, lambda status, headers: print(status)))
"""
    )
    printed = run(source, WEBHOOK_SECRET=SECRET)
    assert printed == "1 open 3 None\n204 No Content\n[]\n401 Refused\n[b'the signature is missing or invalid']\n"


def test_token() -> None:
    assert run(program("TokenIssuer("), FDPUSH_JWT_SECRET="x" * 32).count(".") == 2
