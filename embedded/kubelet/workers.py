"""What happens to admitted pods: their containers start, end when their time is over, restart."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from itertools import count
from typing import Final

from embedded.annotations import RUN_SECONDS_KEY
from embedded.kubelet.containers import ContainerRuntime, ContainerView, Start
from embedded.kubelet.devicemanager import DeviceManager
from embedded.kubelet.errors import KubeletError
from embedded.kubelet.journal import Journal
from embedded.kubelet.pods import PodTable
from embedded.kubelet.requests import init_containers, sidecar
from runtime.objects import Container, Pod

LAST_BACKOFF: Final = 16
"""A container that cannot start is tried again after at most so many times the first pause."""


class PodWorkers:
    """One thread that does the containers' work of all pods, at its time.

    `settled` is called with a pod's UID when its phase has changed or a container has. Starting
    may wait for a device plugin (PreStartContainer), so it is apart from admission.
    """

    def __init__(
        self,
        *,
        pods: PodTable,
        devices: DeviceManager,
        runtime: ContainerRuntime,
        journal: Journal,
        clock: Callable[[], float],
        settled: Callable[[str], None],
        on_started: Callable[[ContainerView], None],
        first_backoff: float,
    ) -> None:
        self._pods = pods
        self._devices = devices
        self._runtime = runtime
        self._journal = journal
        self._clock = clock
        self._settled = settled
        self._on_started = on_started
        self._first_backoff = first_backoff
        self._wake = threading.Condition()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._stopped = False

    def run(self) -> None:
        """Work until `stop` is called."""
        while True:
            with self._wake:
                while not self._stopped and (pause := self._pause()) != 0:
                    self._wake.wait(pause)
                if self._stopped:
                    return
                now = self._clock()
                ready = []
                while self._due and self._due[0][0] <= now:
                    ready.append(heapq.heappop(self._due)[2])
            for work in ready:
                work()
            self._reap()

    def stop(self) -> None:
        """Let `run` return; nothing that is not begun is done."""
        with self._wake:
            self._stopped = True
            self._wake.notify_all()

    def begin(self, pod: Pod) -> None:
        """Start an admitted pod's containers soon."""
        self._at(0.0, lambda: self._begin(pod.metadata.uid, 0))

    def restart(self, uid: str, container: str) -> None:
        """Start a container again that has died."""
        self._at(0.0, lambda: self._restart(uid, container, 0))

    def end(self, uid: str) -> None:
        """Let a pod's containers end well now."""
        self._runtime.finish(uid)
        self._at(0.0, lambda: None)

    def _pause(self) -> float | None:
        times = [self._due[0][0]] if self._due else []
        if (end := self._runtime.next_end()) is not None:
            times.append(end)
        return max(0.0, min(times) - self._clock()) if times else None

    def _at(self, seconds: float, work: Callable[[], None]) -> None:
        with self._wake:
            heapq.heappush(self._due, (self._clock() + seconds, next(self._order), work))
            self._wake.notify_all()

    def _begin(self, uid: str, tries: int) -> None:
        """Start what is not started yet: init containers in order, then the others."""
        record = self._pods.get(uid)
        if record is None or not record.active:
            return
        pod = record.pod
        seconds = self._run_seconds(pod)
        for container in (*init_containers(pod), *pod.spec.containers):
            if self._runtime.latest(uid, container.name) is not None:
                continue
            initial = container in init_containers(pod)
            lasts = 0.0 if initial and not sidecar(container) else seconds
            if not self._start(pod, container, None if sidecar(container) else lasts, init=initial):
                self._at(self._backoff(tries), lambda: self._begin(uid, tries + 1))
                return
            self._reap()  # an init container ends before the next one starts
        self._pods.mark(uid, "Running", admitted=True)
        self._settled(uid)
        self.finish(uid)  # a short life may be over, or was before this process began

    def _restart(self, uid: str, name: str, tries: int) -> None:
        record = self._pods.get(uid)
        last = self._runtime.latest(uid, name)
        if record is None or not record.active or last is None or last.running:
            return
        containers = (*init_containers(record.pod), *record.pod.spec.containers)
        container = next(each for each in containers if each.name == name)
        left = None if last.ends_at is None else max(0.0, last.ends_at - self._clock())
        if not self._start(record.pod, container, left, init=last.init):
            self._at(self._backoff(tries), lambda: self._restart(uid, name, tries + 1))
            return
        self._settled(uid)

    def _start(self, pod: Pod, container: Container, seconds: float | None, *, init: bool) -> bool:
        try:
            ids, injection = self._devices.run_options(pod, container)
        except KubeletError as error:
            self._journal.note("trouble", pod.key, f"{container.name} cannot start: {error}")
            return False
        if self._stopped:
            return True
        view = self._runtime.start(
            Start(
                uid=pod.metadata.uid,
                namespace=pod.metadata.namespace,
                pod=pod.metadata.name,
                container=container.name,
                devices=ids,
                injection=injection,
                seconds=seconds,
                init=init,
            )
        )
        self._journal.note("container-started", pod.key, container.name)
        self._on_started(view)
        return True

    def _reap(self) -> None:
        for view in self._runtime.end_due():
            self._journal.note("container-ended", f"{view.namespace}/{view.pod}", view.container)
            self.finish(view.uid)

    def finish(self, uid: str) -> None:
        """Settle a pod all of whose main containers have ended."""
        record = self._pods.get(uid)
        if record is None or not record.active or not record.admitted:
            return
        names = [container.name for container in record.pod.spec.containers]
        views = [self._runtime.latest(uid, name) for name in names]
        if all(view is not None and view.by_itself for view in views):
            self._runtime.kill(uid)  # its sidecars
            self._pods.mark(uid, "Succeeded", admitted=True)
            self._journal.note("finished", record.pod.key, "")
            self._settled(uid)

    def _run_seconds(self, pod: Pod) -> float | None:
        text = pod.metadata.annotation(RUN_SECONDS_KEY)
        if text is None:
            return None
        try:
            seconds = float(text)
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds < 1e9:
            self._journal.note(
                "trouble", pod.key, f"{RUN_SECONDS_KEY}: {text!r} is no time; runs on"
            )
            return None
        return seconds

    def _backoff(self, tries: int) -> float:
        return self._first_backoff * min(1 << tries, LAST_BACKOFF)
