"""Who may ask: who is on our own loopback, who has the token of a file, who may by RBAC."""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from scheduler.explain.errors import StrangerError, TokenError
from scheduler.explain.reviews import Reviews
from scheduler.explain.settings import is_loopback
from scheduler.explain.tokens import TokenFile

_OWN: Final = frozenset({ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")})
"""Where kubectl's port-forward comes from. Not the rest of 127/8: sidecars that pass on what comes
from outside use 127.0.0.6."""


class Access:
    """Lets callers in. `trust_loopback` asks nothing of who comes over the loopback interface.

    That is where `kubectl port-forward` comes from, whose user the API server has asked for his
    rights; and every process of the pod, or of the node for a pod in the host's network.
    """

    def __init__(
        self,
        *,
        token: TokenFile | None = None,
        reviews: Reviews | None = None,
        trust_loopback: bool = True,
    ) -> None:
        self.token = token
        self._reviews = reviews
        self._trust_loopback = trust_loopback

    @property
    def audience(self) -> str:
        """For whom tokens of the cluster's have to be; "" if none are taken."""
        return "" if self._reviews is None else self._reviews.audience

    async def admit(self, caller: HTTPConnection) -> None:
        """Return if the caller may ask.

        Raises TokenError, ForbiddenError or ReviewError, and StrangerError for who needs no token
        but asks for another host's name: a foreign page whose name was pointed at the loopback
        address after it was loaded must not read ours.
        """
        given = caller.headers.get("Authorization", "")
        near = self.trusts(caller)
        if near and is_loopback(host := host_of(caller)):
            return
        if near and not given:
            raise StrangerError(host)
        await self.check(given)

    def trusts(self, caller: HTTPConnection) -> bool:
        """Return whether a caller needs no token, by where the connection comes from."""
        return self._trust_loopback and caller.client is not None and is_own(caller.client.host)

    async def check(self, header: str) -> None:
        """Raise unless an Authorization header carries a token that opens."""
        scheme, _, given = header.partition(" ")
        given = given.strip()
        if scheme.lower() != "bearer" or not given:
            raise TokenError("a bearer token is needed")
        if self.token is not None and self.token.fits(given):
            return
        if self._reviews is None:
            raise TokenError("that is not the token")
        await self._reviews.check(given)


def is_own(address: str) -> bool:
    """Return whether a peer's address is this host's loopback, in either family."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)  # what a socket of both families shows
    return (mapped or found) in _OWN


def host_of(caller: HTTPConnection) -> str:
    """Return the name in the Host header, without the port; whatever does not read is no name."""
    try:
        return urlsplit(f"//{caller.headers.get('Host', '')}").hostname or ""
    except ValueError:
        return ""
