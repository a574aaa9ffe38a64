"""A client of the fdpush WebSocket push server: the HTTP API, webhooks and tokens."""

from ._async_client import AsyncClient
from ._client import Client
from ._errors import ApiError, FdpushError, TransportError, WebhookError
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
    Tls,
    User,
)
from ._tokens import TokenIssuer
from ._webhooks import ConnectRequest, Event, EventBatch, WebhookVerifier

__all__ = [
    "ApiError",
    "AsyncClient",
    "ChangeResult",
    "Client",
    "ConnectRequest",
    "Connection",
    "Event",
    "EventBatch",
    "FdpushError",
    "Group",
    "Member",
    "Name",
    "OnlineResult",
    "Push",
    "PushError",
    "PushResult",
    "Stats",
    "Target",
    "Tls",
    "TokenIssuer",
    "TransportError",
    "User",
    "WebhookError",
    "WebhookVerifier",
]
