"""Listening: at a party's own address, and at those where others reach it.

A wildcard beside an own listener on loopback: Linux lets the two share a port where both say
SO_REUSEPORT, and brings each connection to the more specific one. It is said after the own
address was bound without it, so that a port that somebody has stays an error.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
from collections.abc import Iterator, Sequence

from .problems import StartError
from .reach import in_url, is_wildcard

BACKLOG = 2048


@contextlib.contextmanager
def listening(
    who: str, own: tuple[str, int], also: Sequence[str] = (), *, tls: bool = False
) -> Iterator[tuple[socket.socket, list[socket.socket]]]:
    """The listener at ``own`` (host, port), and those at the same port of other addresses;
    closed at the end. ``tls``: something else is spoken there. StartError."""
    host, port = own
    with contextlib.ExitStack() as held:
        listener = held.enter_context(_bound(who, host, port))
        others = []
        if any(is_wildcard(address) for address in also):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for address in also:
            if _same(address, host):
                if tls:
                    raise StartError(
                        f"{who} cannot speak TLS on {in_url(address)}:{port}: there the parties "
                        "call each other without; name another address"
                    )
                continue
            # Beside the wildcard of IPv4, that of IPv6 stands for IPv6 only.
            both = not any(is_wildcard(one) and ":" not in one for one in also)
            others.append(
                held.enter_context(_bound(who, address, port, shared=True, dual_stack=both))
            )
        yield listener, others


def _same(address: str, host: str) -> bool:
    try:
        return ipaddress.ip_address(address) == ipaddress.ip_address(host)
    except ValueError:  # a name such as localhost
        return False


def _bound(
    who: str, host: str, port: int, *, shared: bool = False, dual_stack: bool = False
) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    # The connections that it accepts inherit this (asyncio sets it on sockets of its own making
    # only): head and body of an answer are written one after the other, and on a kept
    # connection the second one would wait 40 ms for a delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            only = not (dual_stack and is_wildcard(host))
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        if shared and is_wildcard(host):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        place = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)[0][4]
        listener.bind(place)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        if error.errno == errno.EADDRNOTAVAIL:
            reason = f"{host} is no address of this machine"
        raise StartError(f"{who} cannot listen on {in_url(host)}:{port}: {reason}") from None
    except BaseException:
        listener.close()
        raise
    return listener
