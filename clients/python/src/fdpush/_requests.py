"""The requests of the API, without network access. Both clients send these requests, and read answers with `Request.read`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Callable, Generic, TypeVar
from urllib.parse import quote, urlencode

from ._errors import ApiError, TransportError
from ._json import JsonObject, Malformed, encode
from ._push import Name, Push, Target, by_fd_or_uid, name_list
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

#: The default address of the API.
DEFAULT_ADDRESS = "http://127.0.0.1:9502"

#: The default timeout in seconds. The default is longer than the server's `answer_time_max`, 10 s.
DEFAULT_TIMEOUT = 15.0

#: The maximum time of a connect in seconds.
CONNECT_TIMEOUT_MAX = 3.0

#: Seconds for which the client keeps an unused connection open. The server closes an unused connection after
#: `keep_alive_max`, 60 s.
KEEP_ALIVE = 50.0

#: The maximum size of the body of a batch request with more than one push, in bytes. httpx sends the whole body before it
#: reads the answer, so the buffers of the sockets and of the server must have room for the answer.
BATCH_BYTES_MAX = 64 << 10

#: If an answer is not from fdpush, the error message contains at most this number of bytes of the answer.
_TEXT_BYTES_MAX = 200


@dataclass(frozen=True)
class Address:
    """The address of the API and the headers with the API key."""

    url: str
    #: The path of the unix socket, or None.
    socket: str | None
    headers: dict[str, str]

    @staticmethod
    def parse(address: str, key: str) -> Address:
        if re.search(r"[^\x21-\x7e]", key):
            raise ValueError("an API key must contain only visible ASCII characters")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        if address.startswith("unix:"):
            return Address("http://localhost", address[len("unix:") :], headers)
        if "://" not in address:
            address = f"http://{address}"
        if not re.fullmatch(r"https?://[^/?#@\s]+/?", address):
            raise ValueError("the address of the API must be http://HOST:PORT, https://HOST:PORT or unix:PATH")
        return Address(address.rstrip("/"), None, headers)


@dataclass(frozen=True)
class Request(Generic[T]):
    """A request, and the function that reads its answer from the status and the body."""

    method: str
    path: str
    read: Callable[[int, bytes], T]
    content: bytes | None = None
    content_type: str = "application/json"


@dataclass(frozen=True)
class Page(Generic[T]):
    """A page of a list."""

    items: list[T]
    #: The entry after which the next page begins. None on the last page.
    next: Name | None


class BatchRequest:
    """The pushes of one request of a batch, up to a maximum size."""

    def __init__(self, pushes_max: int) -> None:
        if pushes_max < 1:
            raise ValueError("the maximum number of pushes in a request must be at least 1")
        self._pushes_max = pushes_max
        self._bytes = 0
        self._lines: list[bytes] = []

    def has_room(self, push: Push) -> bool:
        """Returns whether this request has room for a push. An empty request has room for any push."""
        fits = self._bytes + len(push.json.encode()) + 1 <= BATCH_BYTES_MAX
        return not self._lines or (fits and len(self._lines) < self._pushes_max)

    def add(self, push: Push) -> None:
        line = push.json.encode() + b"\n"
        self._lines.append(line)
        self._bytes += len(line)

    def request(self) -> Request[list[PushResult | PushError]] | None:
        """Returns the request, or None if it has no pushes."""
        if not self._lines:
            return None
        content = b"".join(self._lines)
        return Request("POST", "/api/batch", self._read, content, "application/x-ndjson")

    def missing(self, results: list[PushResult | PushError]) -> TransportError | None:
        """Returns the error of an answer that is shorter than the request, or None."""
        if len(results) == len(self._lines):
            return None
        return TransportError(f"the batch ended after {len(results)} of {len(self._lines)} answers")

    def received(self, error: TransportError) -> list[PushResult | PushError]:
        """Returns the results that arrived before a failure."""
        return self._read(200, error.received)

    def _read(self, status: int, body: bytes) -> list[PushResult | PushError]:
        if status != 200:
            raise _error(status, body)
        # The last element is the text after the last line end, which is empty or an incomplete answer.
        return [_parse(line, _push_outcome) for line in body.split(b"\n")[:-1]]


def push(command: Push) -> Request[PushResult]:
    return _command("push", command.json, PushResult.read)


def bind(fd: int, uid: Name) -> Request[ChangeResult]:
    return _change("bind", {"fd": fd, "uid": uid})


def unbind(target: Target) -> Request[ChangeResult]:
    return _change("unbind", by_fd_or_uid(target))


def join(target: Target, groups: Name | Iterable[Name]) -> Request[ChangeResult]:
    return _change("join", {**by_fd_or_uid(target), "groups": name_list(groups)})


def leave(target: Target, groups: Name | Iterable[Name]) -> Request[ChangeResult]:
    return _change("leave", {**by_fd_or_uid(target), "groups": name_list(groups)})


def ungroup(groups: Name | Iterable[Name]) -> Request[ChangeResult]:
    return _change("ungroup", {"groups": name_list(groups)})


def close(target: Target, code: int, reason: str) -> Request[int]:
    members = {target.kind: target.value, "code": code, "reason": reason}
    return _command("close", encode(members), lambda answer: answer.integer("matched"))


def abort(target: Target) -> Request[int]:
    return _command("close", encode({target.kind: target.value, "abort": True}), lambda answer: answer.integer("matched"))


def online(uids: Iterable[Name]) -> Request[OnlineResult]:
    return _command("online", encode({"uids": name_list(uids)}), OnlineResult.read)


def users(after: Name | None, limit: int) -> Request[Page[User]]:
    return _page("/api/users", "users", User.read, after, limit)


def user_connections(uid: Name, after: Name | None, limit: int) -> Request[Page[Connection]]:
    return _page(f"/api/users/{_segment(uid)}", "connections", Connection.read, after, limit)


def groups(after: Name | None, limit: int) -> Request[Page[Group]]:
    return _page("/api/groups", "groups", Group.read, after, limit)


def members(group: Name, after: Name | None, limit: int) -> Request[Page[Member]]:
    return _page(f"/api/groups/{_segment(group)}", "members", Member.read, after, limit)


def connections(after: Name | None, limit: int) -> Request[Page[Connection]]:
    return _page("/api/connections", "connections", Connection.read, after, limit)


def member_count(group: Name) -> Request[int]:
    return Request("GET", f"/api/groups/{_segment(group)}?limit=1", _reader(lambda answer: answer.integer("count")))


def connection(fd: int) -> Request[Connection | None]:
    return Request("GET", f"/api/connections/{fd}", _optional_reader(Connection.read))


def attributes(method: str, fd: int, value: dict[str, Any] | None) -> Request[dict[str, Any] | None]:
    content = None if value is None else encode(value).encode()
    return Request(method, f"/api/connections/{fd}/attributes", _optional_reader(lambda answer: answer.members), content)


def stats() -> Request[Stats]:
    return Request("GET", "/api/stats", _reader(Stats.read))


def ready() -> Request[bool]:
    return Request("GET", "/readyz", lambda status, _: status == 200)


def _command(name: str, json: str, read: Callable[[JsonObject], T]) -> Request[T]:
    return Request("POST", f"/api/{name}", _reader(read), json.encode())


def _change(name: str, members: dict[str, object]) -> Request[ChangeResult]:
    return _command(name, encode(members), ChangeResult.read)


def _page(path: str, name: str, read: Callable[[JsonObject], T], after: Name | None, limit: int) -> Request[Page[T]]:
    parameters: list[tuple[str, Name]] = [("limit", limit)]
    if after is not None:
        parameters.append(("after", after))

    def read_page(answer: JsonObject) -> Page[T]:
        after = answer.members.get("next")
        return Page([read(item) for item in answer.objects(name)], after if isinstance(after, (str, int)) else None)

    optional = _optional_reader(read_page)
    # The server answers 404 if an offline user is queried. In this case, the page is empty.
    return Request("GET", f"{path}?{urlencode(parameters)}", lambda status, body: optional(status, body) or Page([], None))


def _reader(read: Callable[[JsonObject], T]) -> Callable[[int, bytes], T]:
    def read_answer(status: int, body: bytes) -> T:
        if status != 200:
            raise _error(status, body)
        return _parse(body, read)

    return read_answer


def _optional_reader(read: Callable[[JsonObject], T]) -> Callable[[int, bytes], T | None]:
    """Returns a reader that returns None if the server answers `not_found`."""
    required = _reader(read)

    def read_answer(status: int, body: bytes) -> T | None:
        try:
            return required(status, body)
        except ApiError as error:
            if error.status == 404 and error.code == "not_found":
                return None
            raise

    return read_answer


def _push_outcome(answer: JsonObject) -> PushResult | PushError:
    return PushError.read(answer) if "error" in answer.members else PushResult.read(answer)


def _parse(body: bytes, read: Callable[[JsonObject], T]) -> T:
    try:
        return read(JsonObject.parse(body))
    except Malformed as error:
        raise TransportError(f"the answer is not from fdpush: {error}", body) from error


def _error(status: int, body: bytes) -> ApiError:
    try:
        answer = JsonObject.parse(body)
        error = answer.object("error")
        return ApiError(status, error.text("code"), error.text("message"), answer.id())
    except Malformed:
        return ApiError(status, "", f"not from fdpush: {body[:_TEXT_BYTES_MAX].decode(errors='replace')}")


def _segment(name: Name) -> str:
    # A group may have the name `.` or `..`. httpx would remove such a segment from the path.
    return quote(str(name), safe="").replace(".", "%2E")
