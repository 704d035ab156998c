"""Which devices each container of each pod holds, and the answer it got for them. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from embedded.kubelet.devices import Device, Injection


class Grant(msgspec.Struct, frozen=True):
    """The devices of one resource that a container holds, as they were when it got them."""

    pod_uid: str
    container: str
    resource: str
    devices: tuple[Device, ...]
    injection: Injection

    @property
    def ids(self) -> frozenset[str]:
        """The devices' IDs."""
        return frozenset(device.id for device in self.devices)


class PodDevices:
    """All grants of a node. Not safe to share between threads."""

    def __init__(self, grants: Iterable[Grant] = ()) -> None:
        self._pods: dict[str, dict[tuple[str, str], Grant]] = {}
        for grant in grants:
            self.insert(grant)

    def insert(self, grant: Grant) -> None:
        """Record a grant in place of an earlier one of the same container and resource."""
        pod = self._pods.setdefault(grant.pod_uid, {})
        pod[grant.container, grant.resource] = grant

    def delete(self, uids: Iterable[str]) -> None:
        """Forget these pods."""
        for uid in uids:
            self._pods.pop(uid, None)

    def pods(self) -> frozenset[str]:
        """Return the UIDs of the pods that hold something."""
        return frozenset(self._pods)

    def grants(self, uid: str | None = None, container: str | None = None) -> tuple[Grant, ...]:
        """Return the grants, those of a pod or those of one of its containers."""
        pods = self._pods.values() if uid is None else (self._pods.get(uid, {}),)
        return tuple(
            grant for pod in pods for grant in pod.values() if container in (None, grant.container)
        )

    def ids(self, uid: str, container: str, resource: str) -> frozenset[str] | None:
        """Return what a container holds of a resource, None if it was never given any."""
        grant = self._pods.get(uid, {}).get((container, resource))
        return None if grant is None else grant.ids

    def in_use(self) -> dict[str, set[str]]:
        """Return the held devices of each resource."""
        held: dict[str, set[str]] = {}
        for grant in self.grants():
            held.setdefault(grant.resource, set()).update(grant.ids)
        return held
