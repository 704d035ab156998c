"""Which replica decides, and where it is: only there are the records.

kube-scheduler's own Lease tells: its holder is named after the host that it runs on, which is its
pod or, in the host's network, the node; the extender beside it is the one that is asked to filter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

import msgspec
import structlog

from runtime.errors import KubeError, NotFoundError
from scheduler.explain.errors import LeaderError

KNOWN_SECONDS: Final = 2.0
"""How long an answer about the Lease is believed: kube-scheduler renews it every 2 s."""

ASKING_SECONDS: Final = 2.0
"""How long a question waits for the API server's answer, each time."""

AWAY_SECONDS: Final = 10.0
"""How long an API server that did not answer is not asked again: questions must not wait for it."""

_UNKNOWN: Final = (
    *(KubeError, TimeoutError),
    # What others wrote into an object may be anything.
    *(msgspec.DecodeError, UnicodeDecodeError, RecursionError),
)

_log = structlog.get_logger("scheduler.explain")

T = TypeVar("T")


class GetApi(Protocol):
    """The part of the API server's client that finding the leader needs."""

    async def get(self, path: str) -> bytes:
        """Read an object."""


class _LeaseSpec(msgspec.Struct, frozen=True, rename="camel"):
    holder_identity: str | None = None


class _Lease(msgspec.Struct, frozen=True):
    spec: _LeaseSpec = _LeaseSpec()


class _PodStatus(msgspec.Struct, frozen=True):
    pod_ip: str | None = msgspec.field(name="podIP", default=None)


class _Pod(msgspec.Struct, frozen=True):
    status: _PodStatus = _PodStatus()


class _NodeAddress(msgspec.Struct, frozen=True):
    type: str = ""
    address: str = ""


class _NodeStatus(msgspec.Struct, frozen=True):
    addresses: tuple[_NodeAddress, ...] = ()


class _Node(msgspec.Struct, frozen=True):
    status: _NodeStatus = _NodeStatus()


class Leader:
    """Finds the leader by the Lease ``namespace/name``. `me` is the name that it would know us by.

    `clock` gives seconds that never go back.
    """

    def __init__(self, api: GetApi, lease: str, *, me: str, clock: Callable[[], float]) -> None:
        self.me = me
        self._api = api
        self._namespace, _, self._name = lease.partition("/")
        self._clock = clock
        self._reading = asyncio.Lock()
        self._begun = self._until = float("-inf")
        self._holder: str | None = None
        self._address: tuple[str, str] = ("", "")

    async def elsewhere(self, *, anew: bool = False) -> str | None:
        """Return who decides, None if that is us or nobody knows; `anew` asks in any case.

        An API server that does not say leaves it at what was known: the leader may be well.
        """
        asked = self._clock()
        # One reads at a time; who waited for it takes what was found.
        async with self._reading:
            if self._begun <= asked if anew else self._until <= asked:
                await self._read()
        return self._holder

    async def _read(self) -> None:
        begun = self._clock()
        path = f"/apis/coordination.k8s.io/v1/namespaces/{self._namespace}/leases/{self._name}"
        try:
            lease = await self._get(path, _Lease)
        except _UNKNOWN as error:
            said = str(error) or "no answer in time"
            _log.warning("cannot read who leads", lease=self._name, error=said)
            self._until = self._clock() + AWAY_SECONDS
        else:
            # kube-scheduler's identity is its host's name and a random part.
            holder = (lease.spec.holder_identity or "").rpartition("_")[0]
            self._holder = holder if holder and holder != self.me else None
            self._until = begun + KNOWN_SECONDS
        self._begun = begun

    async def address(self, name: str) -> str:
        """Return the IP address of who decides. Raises LeaderError."""
        if self._address[0] == name:
            return self._address[1]
        try:
            found = await self._find(name)
        except _UNKNOWN as error:
            said = str(error) or "no answer in time"
            raise LeaderError(f"where {name} is, which decides, cannot be read: {said}") from None
        if not found:
            raise LeaderError(f"{name} decides, and has no address: it may be gone; ask again")
        self._address = name, found
        return found

    def forget_address(self) -> None:
        """Look again where the leader is when it is next asked for."""
        self._address = ("", "")

    async def _find(self, name: str) -> str | None:
        try:
            path = f"/api/v1/namespaces/{self._namespace}/pods/{name}"
            return (await self._get(path, _Pod)).status.pod_ip
        except NotFoundError:
            pass
        try:
            node = await self._get(f"/api/v1/nodes/{name}", _Node)
        except NotFoundError:
            return None
        addresses = node.status.addresses
        return next((one.address for one in addresses if one.type == "InternalIP"), None)

    async def _get(self, path: str, kind: type[T]) -> T:
        async with asyncio.timeout(ASKING_SECONDS):
            return msgspec.json.decode(await self._api.get(path), type=kind)
