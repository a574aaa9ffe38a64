"""Push commands and their targets."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Union

from ._json import encode

#: A uid, a group or a key: a string of 1 to 128 bytes of UTF-8, or an integer, which stands for its decimal text.
Name = Union[str, int]

_ABSENT = object()


@dataclass(frozen=True)
class Target:
    """A selection of connections: by fd, by uid, by group, or all. The static methods create targets."""

    #: The name of the command's member that selects the connections, such as `uid`.
    kind: str
    #: The value of the member `kind`.
    value: bool | Name | Sequence[Name]

    @staticmethod
    def fd(fd: int) -> Target:
        """Selects one connection."""
        return Target("fd", fd)

    @staticmethod
    def fds(fds: Iterable[int]) -> Target:
        """Selects several connections."""
        return Target("fds", tuple(fds))

    @staticmethod
    def uid(uid: Name) -> Target:
        """Selects every connection of a user."""
        return Target("uid", uid)

    @staticmethod
    def uids(uids: Iterable[Name]) -> Target:
        """Selects every connection of several users."""
        return Target("uids", _names(uids))

    @staticmethod
    def group(group: Name) -> Target:
        """Selects the members of a group."""
        return Target("group", group)

    @staticmethod
    def groups(groups: Iterable[Name]) -> Target:
        """Selects the members of several groups. A member of two groups is selected once."""
        return Target("groups", _names(groups))

    @staticmethod
    def all() -> Target:
        """Selects every open WebSocket."""
        return Target("all", True)


class Push:
    """A push command: a target, one content, and options.

    Push(Target.group("room"), data={"text": "hello"}, exclude=[Target.uid("10010")])
    """

    #: The command as JSON, in one line.
    json: str

    def __init__(
        self,
        to: Target,
        *,
        data: object = _ABSENT,
        text: str | None = None,
        binary: bytes | None = None,
        exclude: Iterable[Target] = (),
        key: Name | None = None,
        compress: bool = True,
        id: str | int | None = None,
    ) -> None:
        """Creates a push.

        Args:
            to: Selects the connections that get the message.
            data: JSON data, which clients get inside a frame of the type `message`. None is the JSON value null.
            text: The payload of a text frame.
            binary: The payload of a binary frame.
            exclude: Selects connections that do not get the message.
            key: With `slow_reader = "conflate"`, the message replaces an unsent message with this key.
            compress: False sends the message uncompressed. Use False for a message with a secret and text of other users.
            id: An identifier of at most 128 bytes. The result or the error of the push contains this identifier.
        """
        members: dict[str, object] = {to.kind: to.value}
        if data is not _ABSENT:
            members["data"] = data
        if text is not None:
            members["text"] = text
        if binary is not None:
            members["binary"] = base64.b64encode(binary).decode()
        if len(members) != 2:
            raise ValueError("a push needs exactly one content: data, text or binary")
        if excluded := _excluded(exclude):
            members["except"] = excluded
        if key is not None:
            members["key"] = key
        if not compress:
            members["compress"] = False
        if id is not None:
            members["id"] = id
        self.json = encode(members)

    def __repr__(self) -> str:
        return f"Push({self.json})"


def by_fd_or_uid(target: Target) -> dict[str, object]:
    """Returns the member that selects connections by fd or uid. Raises ValueError for a group or all connections."""
    if target.kind not in ("fd", "fds", "uid", "uids"):
        raise ValueError(f"this command selects connections by fd or uid, not by {target.kind}")
    return {target.kind: target.value}


def name_list(names: Name | Iterable[Name]) -> list[Name]:
    """Returns one or several names as a list."""
    return [names] if isinstance(names, (str, int)) else list(names)


def _names(names: Iterable[Name]) -> Sequence[Name]:
    # tuple() would make a name of each character of a string.
    if isinstance(names, str):
        raise TypeError("expected several names, found a string")
    return tuple(names)


def _excluded(targets: Iterable[Target]) -> dict[str, list[Name]]:
    members: dict[str, list[Name]] = {}
    for target in targets:
        if isinstance(target.value, bool):
            raise ValueError("a push cannot exclude all connections")
        members.setdefault(target.kind.rstrip("s") + "s", []).extend(name_list(target.value))
    return members
