"""A container runtime that starts nothing: it remembers what each container would have seen.

It is the part of a node that outlives a kubelet process: containers go on while no kubelet runs
and end when their time is over.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Literal

import msgspec

from embedded.kubelet.devices import DeviceNode, Injection, Mount

State = Literal["running", "exited"]


class ContainerView(msgspec.Struct, frozen=True):
    """One start of one container: whose it is, what it saw, and how it stands.

    `devices` are the IDs that kubelet gave it, of all resources. `started` and `ended` are seconds
    of the kubelet's clock; `ended` is None while it runs. A restart is a new view with the
    next `attempt`. `ends_at` is when a running one will end by itself, None for never.
    """

    uid: str
    namespace: str
    pod: str
    container: str
    state: State
    env: dict[str, str]
    devices: tuple[str, ...]
    started: float
    ended: float | None = None
    attempt: int = 0
    mounts: tuple[Mount, ...] = ()
    device_nodes: tuple[DeviceNode, ...] = ()
    annotations: dict[str, str] = {}
    cdi_devices: tuple[str, ...] = ()
    ends_at: float | None = None
    init: bool = False

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.state == "running"

    @property
    def by_itself(self) -> bool:
        """Whether it has ended because its time was over, and not by a kill."""
        return self.ended is not None and self.ends_at is not None and self.ended >= self.ends_at


class Start(msgspec.Struct, frozen=True):
    """What kubelet tells the runtime: the container, its devices, what to inject.

    `seconds` is how long it will run, None for ever; 0 for an init container that ends at once.
    """

    uid: str
    namespace: str
    pod: str
    container: str
    devices: tuple[str, ...]
    injection: Injection
    seconds: float | None = None
    init: bool = False


class ContainerRuntime:
    """The containers of one node."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._views: dict[tuple[str, str, int], ContainerView] = {}
        self._latest: dict[tuple[str, str], int] = {}

    def start(self, order: Start) -> ContainerView:
        """Start a container, again if it is known already."""
        with self._lock:
            now = self._clock()
            attempt = self._latest.get((order.uid, order.container), -1) + 1
            view = ContainerView(
                uid=order.uid,
                namespace=order.namespace,
                pod=order.pod,
                container=order.container,
                state="running",
                env=dict(order.injection.env),
                devices=order.devices,
                started=now,
                attempt=attempt,
                mounts=order.injection.mounts,
                device_nodes=order.injection.device_nodes,
                annotations=dict(order.injection.annotations),
                cdi_devices=order.injection.cdi_devices,
                ends_at=None if order.seconds is None else now + order.seconds,
                init=order.init,
            )
            self._views[order.uid, order.container, attempt] = view
            self._latest[order.uid, order.container] = attempt
            return view

    def kill(self, uid: str, container: str | None = None) -> None:
        """End a pod's containers, or one of them, now."""
        with self._lock:
            now = self._clock()
            for key, view in self._views.items():
                if view.uid == uid and view.running and container in (None, view.container):
                    self._views[key] = _ended(view, now)

    def finish(self, uid: str) -> None:
        """Let a pod's running containers be over now, as by themselves."""
        with self._lock:
            now = self._clock()
            for key, view in self._views.items():
                if view.uid == uid and view.running:
                    self._views[key] = msgspec.structs.replace(view, ends_at=now)

    def end_due(self) -> tuple[ContainerView, ...]:
        """End the containers whose time is over; return them."""
        with self._lock:
            now = self._clock()
            due = [
                key
                for key, view in self._views.items()
                if view.running and view.ends_at is not None and view.ends_at <= now
            ]
            for key in due:
                view = self._views[key]
                self._views[key] = _ended(view, view.ends_at or now)
            return tuple(self._views[key] for key in due)

    def next_end(self) -> float | None:
        """Return when the next container will end by itself, None if none will."""
        with self._lock:
            return min(
                (v.ends_at for v in self._views.values() if v.running and v.ends_at is not None),
                default=None,
            )

    def latest(self, uid: str, container: str) -> ContainerView | None:
        """Return the last start of a container, None if there was none."""
        with self._lock:
            attempt = self._latest.get((uid, container))
            return None if attempt is None else self._views[uid, container, attempt]

    def views(self) -> tuple[ContainerView, ...]:
        """Return every start there ever was, oldest first."""
        with self._lock:
            return tuple(self._views.values())

    def running(self, uid: str, containers: Iterable[str]) -> bool:
        """Tell whether any of a pod's containers runs."""
        return any((view := self.latest(uid, name)) and view.running for name in containers)


def _ended(view: ContainerView, when: float) -> ContainerView:
    return msgspec.structs.replace(view, state="exited", ended=when)
