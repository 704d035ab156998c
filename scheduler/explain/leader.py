"""Which replica decides, and asking it: only there are the records.

kube-scheduler's own Lease tells: its holder is named after the pod that it runs in, and the
extender beside it is the one that is asked to filter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

import aiohttp
import msgspec
import structlog

from runtime.errors import KubeError, NotFoundError
from scheduler.explain.errors import LeaderError

KNOWN_SECONDS: Final = 2.0
"""How long an answer about the Lease is believed: kube-scheduler renews it every 2 s."""

ANSWER_SECONDS: Final = 10.0

FORWARDED: Final = "X-Gputopo-Forwarded"
"""Set on what is handed on, so that two replicas never send a question in circles."""

_HANDED_ON: Final = ("Authorization", "Content-Type", "Accept")

_log = structlog.get_logger("scheduler.explain")


class GetApi(Protocol):
    """The part of the API server's client that finding the leader needs."""

    async def get(self, path: str, *, timeout: float = ...) -> bytes:  # noqa: ASYNC109 -- a socket's
        """Read an object."""


class _LeaseSpec(msgspec.Struct, frozen=True, rename="camel"):
    holder_identity: str | None = None


class _Lease(msgspec.Struct, frozen=True):
    spec: _LeaseSpec = _LeaseSpec()


class _PodStatus(msgspec.Struct, frozen=True):
    pod_ip: str | None = msgspec.field(name="podIP", default=None)


class _Pod(msgspec.Struct, frozen=True):
    status: _PodStatus = _PodStatus()


class Reply(msgspec.Struct, frozen=True):
    """What the leader answered."""

    status: int
    body: bytes


class Leader:
    """Finds the leader by the Lease ``namespace/name``, and asks it.

    `me` is the name of our own pod, `port` where each replica's API listens. With `reachable`
    false they listen on their own loopback: then it can only be said which one to ask.
    """

    def __init__(
        self,
        api: GetApi,
        lease: str,
        *,
        me: str,
        port: int,
        reachable: bool,
        clock: Callable[[], float],
    ) -> None:
        self._api = api
        self._namespace, _, self._name = lease.partition("/")
        self._me = me
        self._port = port
        self._reachable = reachable
        self._clock = clock
        self._known: tuple[float, str | None] = (float("-inf"), None)
        self._session: aiohttp.ClientSession | None = None

    async def elsewhere(self) -> str | None:
        """Return the pod that decides, None if that is us or not known.

        Who cannot be asked who leads answers from what it has itself.
        """
        now = self._clock()
        if now - self._known[0] < KNOWN_SECONDS:
            return self._known[1]
        path = f"/apis/coordination.k8s.io/v1/namespaces/{self._namespace}/leases/{self._name}"
        try:
            lease = msgspec.json.decode(await self._api.get(path), type=_Lease)
        except (KubeError, msgspec.DecodeError) as error:
            _log.warning("cannot read who leads", lease=self._name, error=str(error))
            return self._remember(None)
        # kube-scheduler's identity is its host's name, that of its pod, and a random part.
        holder = (lease.spec.holder_identity or "").rpartition("_")[0]
        return self._remember(holder if holder and holder != self._me else None)

    async def ask(
        self, pod: str, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> Reply:
        """Hand a question on to the leader's pod. Raises LeaderError."""
        if not self._reachable:
            raise LeaderError(
                f"this replica does not decide; {pod} does, and answers on its own loopback only"
            )
        address = await self._address(pod)
        sent = {name: headers[name] for name in _HANDED_ON if name in headers}
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS)
            )
        try:
            async with self._session.request(
                method, f"{address}{target}", headers={**sent, FORWARDED: self._me}, data=body
            ) as answer:
                return Reply(answer.status, await answer.read())
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise LeaderError(
                f"this replica does not decide, and {pod} does not answer: "
                f"{error or type(error).__name__}"
            ) from None

    async def close(self) -> None:
        """Close idle connections."""
        if self._session is not None:
            await self._session.close()

    def _remember(self, holder: str | None) -> str | None:
        self._known = (self._clock(), holder)
        return holder

    async def _address(self, pod: str) -> str:
        path = f"/api/v1/namespaces/{self._namespace}/pods/{pod}"
        try:
            found = msgspec.json.decode(await self._api.get(path), type=_Pod).status.pod_ip
        except NotFoundError:
            found = None
        except (KubeError, msgspec.DecodeError) as error:
            raise LeaderError(f"where {pod} is, which decides, cannot be read: {error}") from None
        if not found:
            raise LeaderError(f"{pod} decides, and has no address: it may be gone; ask again")
        host = f"[{found}]" if ":" in found else found
        return f"http://{host}:{self._port}"
