"""Issues tokens for clients of a server with `--auth jwt`."""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
import time
from collections.abc import Iterable

from ._json import encode
from ._push import Name

#: The minimum length of a secret (RFC 7518 section 3.2). An attacker can guess a shorter secret from a token.
_SECRET_BYTES_MIN = 32
_NAME_BYTES_MAX = 128
_GROUPS_MAX = 1000


class TokenIssuer:
    """Issues JSON Web Tokens, signed with HS256."""

    def __init__(self, secret: str | bytes, issuer: str | None = None, audience: str | None = None) -> None:
        """Creates an issuer.

        Args:
            secret: The server's `jwt_secret`, at least 32 bytes.
            issuer: The claim `iss`, if the server has `jwt_issuer`.
            audience: The claim `aud`, if the server has `jwt_audience`.
        """
        self._secret = secret.encode() if isinstance(secret, str) else secret
        if len(self._secret) < _SECRET_BYTES_MIN:
            raise ValueError(f"an HS256 secret needs at least {_SECRET_BYTES_MIN} bytes")
        self._issuer = issuer
        self._audience = audience

    def issue(self, uid: Name, ttl: float = 3600, groups: Iterable[Name] = (), now: float | None = None) -> str:
        """Returns a token. A client connects with `?token=…`, `Authorization: Bearer …` or the subprotocol `bearer.…`.

        Args:
            uid: The uid of the client.
            ttl: The lifetime in seconds. The server closes the connection with 4003, 5 s after the end of the lifetime.
            groups: The groups that the client joins when it connects.
            now: The current time in seconds since 1970. With None, the time of the clock.
        """
        if ttl < 1:
            raise ValueError("the lifetime of a token must be at least 1 s")
        names = [_name("group", group) for group in groups]
        if len(names) > _GROUPS_MAX:
            raise ValueError(f"group limit exceeded ({_GROUPS_MAX})")
        issued_at = int(time.time() if now is None else now)
        claims: dict[str, object] = {"sub": _name("uid", uid), "iat": issued_at, "exp": issued_at + math.ceil(ttl)}
        if names:
            claims["groups"] = names
        if self._issuer is not None:
            claims["iss"] = self._issuer
        if self._audience is not None:
            claims["aud"] = self._audience
        head = {"typ": "JWT", "alg": "HS256"}
        message = _base64url(encode(head).encode()) + "." + _base64url(encode(claims).encode())
        return message + "." + _base64url(hmac.new(self._secret, message.encode(), hashlib.sha256).digest())


def _name(kind: str, name: Name) -> str:
    text = str(name)
    if not 1 <= len(text.encode()) <= _NAME_BYTES_MAX:
        raise ValueError(f"a {kind} must have 1 to {_NAME_BYTES_MAX} bytes, not {len(text.encode())}")
    return text


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
