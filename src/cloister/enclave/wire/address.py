"""Where a service listens: ``host:port``, ``[host]:port`` for IPv6, or the path of a Unix socket."""

from __future__ import annotations

import socket
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Network, ip_address
from pathlib import Path
from typing import Final

from cloister.core.errors import InputError, StorageError

_MAX_PATH_BYTES: Final = 100
_CREDENTIALS: Final = struct.Struct("3i")
_BACKLOG: Final = 128


@dataclass(frozen=True)
class Address:
    """An address, read from what somebody typed.

    Attributes:
        text: as it was typed.
        path: of a Unix socket; None for a port.
        host: name or number of a host; "" for a path.
        port: its port; 0 for a free one.
    """

    text: str
    path: Path | None = None
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address; InputError ``input.syntax`` for what is none."""
        host, colon, port = text.rpartition(":")
        if colon and host and port.isascii() and port.isdigit() and int(port) < 65536:
            return cls(text, None, host.removeprefix("[").removesuffix("]"), int(port))
        if "/" in text and len(text.encode()) < _MAX_PATH_BYTES and "\0" not in text:
            return cls(text, Path(text))
        raise InputError("input.syntax", "An address is host:port, or the path of a socket.")

    def listen(self) -> socket.socket:
        """A socket that listens here.

        A socket file that nobody listens at any more is replaced.

        Raises:
            StorageError: ``storage.in_use`` where somebody listens here, ``storage.failed`` where nobody can.
        """
        if self.path is not None:
            _remove_deserted(self.path)
        made = self._made(_bound)
        if made is None:
            raise StorageError(
                "storage.in_use",
                f"{self.text} can't be listened on.",
                "Choose another address, or end what listens there.",
            )
        return made

    def connect(self, seconds: float) -> socket.socket | None:
        """A connection to who listens here; None where nobody does.

        Args:
            seconds: how long that may take.
        """
        return self._made(lambda made, where: _connected(made, where, seconds))

    def _made(self, use: Callable[[socket.socket, object], None]) -> socket.socket | None:
        try:
            places = [(socket.AF_UNIX, str(self.path))] if self.path is not None else _places(self)
        except OSError:
            return None
        for family, where in places:
            made = socket.socket(family, socket.SOCK_STREAM)
            try:
                use(made, where)
            except OSError:
                made.close()
            else:
                return made
        return None


def name_of(listening: socket.socket) -> str:
    """The address that a socket listens on."""
    name = listening.getsockname()
    if isinstance(name, str):
        return name
    return f"[{name[0]}]:{name[1]}" if listening.family == socket.AF_INET6 else f"{name[0]}:{name[1]}"


def peer_of(connection: socket.socket) -> str:
    """Who is at the other end, as far as that can be told: an address, or a user of this machine.

    Of IPv6 it is the network: one host has all addresses of a /64 (RFC 4291 section 2.5.4).
    """
    try:
        if connection.family == socket.AF_UNIX:
            raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            return f"user {_CREDENTIALS.unpack(raw)[1]}"
        return _network_of(str(connection.getpeername()[0]))
    except (OSError, ValueError):
        return ""


def _network_of(text: str) -> str:
    address = ip_address(text)
    if isinstance(address, IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    if address.is_link_local:  # all of one wire
        return str(address)
    return str(IPv6Network((int(address), 64), strict=False))


def _places(address: Address) -> list[tuple[socket.AddressFamily, object]]:
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    return [(one[0], one[4]) for one in found]


def _bound(made: socket.socket, where: object) -> None:
    if made.family != socket.AF_UNIX:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(where)  # type: ignore[arg-type]
    made.listen(_BACKLOG)


def _connected(made: socket.socket, where: object, seconds: float) -> None:
    made.settimeout(seconds)
    made.connect(where)  # type: ignore[arg-type]


def _remove_deserted(path: Path) -> None:
    """Remove a socket file that a process left behind; anything else is left alone."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return
    except OSError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError:
            return
