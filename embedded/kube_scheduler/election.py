"""Which of several kube-schedulers works: a Lease, as client-go's leader election holds it.

Nobody trusts another's clock: a Lease is expired when it was not seen to change for as long as it
says. Who cannot renew in time stops leading before that, so two never lead at once.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from runtime.errors import KubeError, NotFoundError
from runtime.kube import KubeClient

NAMESPACE: Final = "kube-system"
_LEASES: Final = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"


class Terms(msgspec.Struct, frozen=True):
    """Seconds: how long a Lease holds, how long a leader tries to renew it, and between tries.

    kube-scheduler's defaults. `lease` is sent as whole seconds.
    """

    lease: int = 15
    renew: float = 10.0
    retry: float = 2.0


class Election:
    """One candidate, called `identity`, for the Lease `name`. `clock` is monotonic seconds."""

    def __init__(
        self,
        client: KubeClient,
        name: str,
        identity: str,
        *,
        terms: Terms = Terms(),  # noqa: B008 -- a frozen value
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._name = name
        self._identity = identity
        self._terms = terms
        self._clock = clock
        self._seen: dict[str, Any] = {}
        self._seen_at = 0.0

    def win(self, stopping: threading.Event) -> bool:
        """Try until this candidate leads; False if `stopping` was set before."""
        while not stopping.is_set():
            if self._try():
                return True
            stopping.wait(self._terms.retry)
        return False

    def keep(self, stopping: threading.Event) -> None:
        """Renew until `stopping` is set, or the Lease could not be renewed in time."""
        renewed = self._clock()
        while not stopping.wait(self._terms.retry):
            if self._try():
                renewed = self._clock()
            elif self._clock() - renewed >= self._terms.renew:
                return

    def resign(self) -> None:
        """Give the Lease up if it is held, so that another need not wait for its end."""
        try:
            lease = self._read()
            if lease is None or lease["spec"].get("holderIdentity") != self._identity:
                return
            spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
            self._client.put(f"{_LEASES}/{self._name}", {**lease, "spec": spec})
        except KubeError:
            return  # it will expire

    def _try(self) -> bool:
        """Take or renew the Lease; False if somebody else holds it or cannot be asked."""
        try:
            lease = self._read()
            if lease is None:
                meta = {"name": self._name, "namespace": NAMESPACE}
                self._client.post(_LEASES, {"metadata": meta, "spec": self._spec({})})
                return True
            if lease != self._seen:
                self._seen, self._seen_at = lease, self._clock()
            spec = lease["spec"]
            holder = spec.get("holderIdentity") or ""
            over = self._seen_at + float(spec.get("leaseDurationSeconds") or 0)
            if holder not in {"", self._identity} and self._clock() < over:
                return False
            body = {**lease, "spec": self._spec(spec)}
            self._client.put(f"{_LEASES}/{self._name}", body, timeout=self._terms.renew)
        except KubeError:
            return False  # another was faster, or nobody answers
        return True

    def _read(self) -> dict[str, Any] | None:
        try:
            data = self._client.get(f"{_LEASES}/{self._name}", timeout=self._terms.renew)
        except NotFoundError:
            return None
        return dict(msgspec.json.decode(data))

    def _spec(self, before: dict[str, Any]) -> dict[str, Any]:
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        same = before.get("holderIdentity") == self._identity
        changes = int(before.get("leaseTransitions") or 0) + (bool(before) and not same)
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": self._terms.lease,
            "acquireTime": before["acquireTime"] if same else now,
            "renewTime": now,
            "leaseTransitions": changes,
        }
