"""Requests to other machines: for webhooks, and for images that are named by a URL.

Whoever can make a server call an address of their choice reaches what only the server can reach.
So a name is resolved once, all addresses that it has must be public or lie in a network that the
settings name, and the connection goes to the very address that was checked. Redirects aren't
followed, answers are cut off at a size, and everything ends at a time.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from visxai.errors import ArgumentError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Answer:
    """What another machine answered.

    Attributes:
        status: The status of HTTP.
        data: The body.
    """

    status: int
    data: bytes


def parse(url: str) -> SplitResult:
    """Read the address of a page on the web.

    Raises:
        ArgumentError: It isn't one of HTTP with a host, or holds a name and password.
    """
    try:
        parts = urlsplit(url)
        known = parts.scheme in _PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known or "@" in parts.netloc or not url.isascii() or not url.isprintable():
        raise ArgumentError(
            expected="a URL such as https://example.org/cat.jpg, without a password",
            got="another text",
            remedy="write it whole",
            field="url",
        )
    return parts


def origin_of(url: str) -> str:
    """Return a URL's scheme, host and port, by which sites are told apart.

    Raises:
        ArgumentError: It is no URL of HTTP.
    """
    parts = parse(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or _PORTS[parts.scheme]}"


def resolve(host: str, port: int, private: Sequence[Network] = ()) -> str:
    """Find the address of a host, if it may be reached.

    Args:
        host: The host's name, or an address.
        port: The port.
        private: Networks that may be reached besides public addresses.

    Returns:
        The address to connect to, which is the one that was checked.

    Raises:
        ArgumentError: It has no address, or one that may not be reached.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise _unreachable("a host that is known", "one that isn't") from error
    addresses = [str(one[4][0]) for one in found]
    if not all(_allowed(one, private) for one in addresses):
        raise ArgumentError(
            expected="a host with a public address",
            got="one with a private address",
            remedy="name its network in outside.private of the settings",
            field="url",
        )
    return addresses[0]


def request(
    url: str,
    *,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    private: Sequence[Network] = (),
    seconds: float = 10.0,
    most: int = 2**16,
) -> Answer:
    """Send one request.

    Args:
        url: Where it goes.
        method: The method of HTTP.
        body: What is sent.
        headers: Further headers.
        private: Networks that may be reached besides public addresses.
        seconds: When it ends, whatever came until then.
        most: The most bytes of the answer's body.

    Returns:
        The answer, whatever its status.

    Raises:
        ArgumentError: The host may not be reached, doesn't answer in time, sends more than it may,
            or answers with a redirect.
    """
    parts = parse(url)
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    connection = _Pinned(host, port, resolve(host, port, private), seconds, parts.scheme == "https")
    # A timeout of the socket begins anew with every byte; this one doesn't.
    ending = threading.Timer(seconds, connection.end)
    ending.daemon = True
    ending.start()
    place = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request(method, place, body, dict(headers or {}))
        answer = connection.getresponse()
        if 300 <= answer.status < 400:
            raise _unreachable("an answer", "a redirect")
        data = answer.read(most + 1)
        status = answer.status
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, ArgumentError):
            raise
        raise _unreachable("an answer in time", connection.ended or "none") from error
    finally:
        ending.cancel()
        connection.close()
    if connection.ended:  # what was read until then may be half of it
        raise _unreachable("an answer in time", connection.ended)
    if len(data) > most:
        raise _unreachable(f"an answer of at most {most} bytes", "a longer one")
    return Answer(status, data)


class _Pinned(http.client.HTTPConnection):
    """A connection to an address that was checked, whatever its host's name resolves to by now."""

    def __init__(self, host: str, port: int, address: str, seconds: float, tls: bool) -> None:
        super().__init__(host, port, timeout=seconds)
        self.default_port = _PORTS["https" if tls else "http"]  # the Host header leaves it out
        self._address, self._tls = address, tls
        # http.client lets go of the socket once the answer's head was read.
        self._wire: socket.socket | None = None
        self.ended: str | None = None

    def connect(self) -> None:
        """Connect to the address, and check the host's certificate where it is HTTPS."""
        self.sock = socket.create_connection((self._address, self.port), self.timeout)
        self._wire = self.sock
        if self._tls:
            context = ssl.create_default_context()
            wrapped = context.wrap_socket(
                self.sock, server_hostname=self.host, do_handshake_on_connect=False
            )
            self.sock = self._wire = wrapped  # from here on `end` reaches it
            wrapped.do_handshake()
        if self.ended:
            raise TimeoutError

    def end(self) -> None:
        """Cut the connection."""
        self.ended = "one that took too long"
        if self._wire is not None:
            try:
                self._wire.shutdown(socket.SHUT_RDWR)
            except OSError:
                return


def _allowed(text: str, private: Sequence[Network]) -> bool:
    address = _unwrapped(ipaddress.ip_address(text.partition("%")[0]))
    named = any(address.version == one.version and address in one for one in private)
    return named or (address.is_global and not address.is_multicast)


def _unwrapped(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for, where it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and address.teredo is not None:
        inner = address.teredo[1]
    return inner or address


def _unreachable(expected: str, got: str) -> ArgumentError:
    return ArgumentError(
        expected=f"{expected} from the URL's host",
        got=got,
        remedy="see that it answers by itself",
        field="url",
    )
