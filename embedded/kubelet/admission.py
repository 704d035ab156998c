"""Kubelet's sync loop: pods come in, are admitted one after another, change, and go.

One thread does all of it, as in kubelet: an Allocate that hangs holds up every other pod of the
node, also those that only want to end.
"""

from __future__ import annotations

import queue
from collections.abc import Callable

import msgspec

from embedded.kubelet.containers import ContainerRuntime
from embedded.kubelet.devicemanager import DeviceManager
from embedded.kubelet.errors import AdmissionError, KubeletError
from embedded.kubelet.journal import Journal
from embedded.kubelet.mirrors import Mirrors, is_mirror
from embedded.kubelet.pods import Phase, PodTable
from embedded.kubelet.predicates import check_fit
from embedded.kubelet.requests import all_containers
from embedded.kubelet.static_pods import StaticPod
from embedded.kubelet.workers import PodWorkers
from runtime.objects import Pod


class _Listed(msgspec.Struct, frozen=True):
    pods: tuple[Pod, ...]


class _Static(msgspec.Struct, frozen=True):
    pods: tuple[StaticPod, ...]


class _Changed(msgspec.Struct, frozen=True):
    pod: Pod


class _Deleted(msgspec.Struct, frozen=True):
    pod: Pod


class _Stop(msgspec.Struct, frozen=True):
    pass


class SyncLoop:
    """Takes pods as a sink does (`listed`, `changed`, `deleted`, from any thread) and admits them.

    `static_listed` brings the static ones, which the sink's words are not about.
    `published` tells the node's allocatable as the API server knows it, `settled` is called with
    the UID of a pod whose status is new, `remove` to ask the API server to delete a terminated pod.
    """

    def __init__(
        self,
        *,
        pods: PodTable,
        devices: DeviceManager,
        runtime: ContainerRuntime,
        workers: PodWorkers,
        mirrors: Mirrors,
        journal: Journal,
        published: Callable[[], dict[str, int]],
        settled: Callable[[str], None],
        remove: Callable[[Pod], None],
        wall_clock: Callable[[], float],
    ) -> None:
        self._pods = pods
        self._devices = devices
        self._runtime = runtime
        self._workers = workers
        self._mirrors = mirrors
        self._journal = journal
        self._published = published
        self._settled = settled
        self._remove = remove
        self._wall_clock = wall_clock
        self._events: queue.SimpleQueue[_Listed | _Static | _Changed | _Deleted | _Stop] = (
            queue.SimpleQueue()
        )
        self._static: dict[str, Pod] = {}
        self._stopped = False
        self._first_list = True

    def listed(self, objects: tuple[Pod, ...]) -> None:
        """Take these as all pods of the node."""
        self._events.put(_Listed(objects))

    def static_listed(self, pods: tuple[StaticPod, ...]) -> None:
        """Take these as all static pods of the node."""
        self._events.put(_Static(pods))

    def changed(self, obj: Pod) -> None:
        """Take a new or changed pod."""
        self._events.put(_Changed(obj))

    def deleted(self, obj: Pod) -> None:
        """Take a pod that is gone."""
        self._events.put(_Deleted(obj))

    def run(self) -> None:
        """Work until `stop` is called."""
        while not self._stopped:
            match self._events.get():
                case _Listed(pods):
                    self._take_list(pods)
                case _Static(pods=static):
                    self._take_static(static)
                case _Changed(pod):
                    if is_mirror(pod):
                        self._mirrors.shown(pod)
                        self._settle_mirror(pod)
                    else:
                        self._take((pod,))
                case _Deleted(pod):
                    if is_mirror(pod):
                        self._mirrors.gone(pod)
                    else:
                        self._drop(pod.metadata.uid)
                case _Stop():
                    return

    def stop(self) -> None:
        """Let `run` return; a pod in admission is left as it is."""
        self._stopped = True
        self._events.put(_Stop())

    def _take_list(self, pods: tuple[Pod, ...]) -> None:
        mirrors = tuple(pod for pod in pods if is_mirror(pod))
        self._mirrors.listed(mirrors)
        for pod in mirrors:
            self._settle_mirror(pod)
        listed = {pod.metadata.uid for pod in pods} | self._static.keys()
        for record in self._pods.records():
            if record.pod.metadata.uid not in listed:
                self._drop(record.pod.metadata.uid)
        self._take(tuple(pod for pod in pods if not is_mirror(pod)))
        if self._first_list and not self._stopped:
            self._first_list = False
            self._end_orphans()
            self._devices.sources_ready()

    def _end_orphans(self) -> None:
        """End what runs of pods that were deleted while no kubelet ran."""
        running = {view.uid for view in self._runtime.views() if view.running}
        for uid in running - {record.pod.metadata.uid for record in self._pods.records()}:
            self._runtime.kill(uid)

    def _take_static(self, static: tuple[StaticPod, ...]) -> None:
        before = self._static
        self._static = {each.pod.metadata.uid: each.pod for each in static}
        self._mirrors.known(static)
        for uid in before.keys() - self._static.keys():
            self._drop(uid)
        self._take(tuple(self._static.values()))

    def _settle_mirror(self, pod: Pod) -> None:
        """Have the status of its static pod written: this one may not have it yet."""
        uid = self._mirrors.static_uid(pod.key)
        if uid is not None:
            self._settled(uid)

    def _take(self, pods: tuple[Pod, ...]) -> None:
        fresh = []
        for pod in pods:
            known = self._pods.get(pod.metadata.uid)
            if known is None:
                fresh.append(pod)
                continue
            self._pods.put(pod)
            if pod.metadata.deletion_timestamp and not known.pod.metadata.deletion_timestamp:
                self._terminate(pod)
        for pod in sorted(fresh, key=lambda each: each.metadata.creation_timestamp or ""):
            if self._stopped:
                return
            self._add(pod)

    def _add(self, pod: Pod) -> None:
        # From here on PodResources shows the pod, without devices: that is how a plugin can tell
        # for which pod it is asked.
        self._pods.put(pod)
        if pod.metadata.deletion_timestamp:
            self._terminate(pod)
            return
        if pod.finished:
            return
        uid = pod.metadata.uid
        survivor = self._first_list and any(
            (view := self._runtime.latest(uid, each.name)) is not None and view.running
            for each in pod.spec.containers
        )
        try:
            self._admit(pod)
        except AdmissionError as error:
            if not self._stopped:
                self._reject(pod, error)
            return
        if self._stopped:
            return
        phase: Phase = "Running" if survivor else "Pending"
        since = 0.0 if survivor else self._wall_clock()
        self._pods.mark(uid, phase, admitted=True, started=since)
        self._journal.note("admitted", pod.key, "running already" if survivor else "")
        if uid in self._static:
            self._mirrors.admitted(pod)
        if survivor:
            self._workers.finish(uid)
            self._settled(uid)
        else:
            self._workers.begin(pod)

    def _admit(self, pod: Pod) -> None:
        uid = pod.metadata.uid
        try:
            for container in all_containers(pod):
                view = self._runtime.latest(uid, container.name)
                runs = self._first_list and view is not None and view.running
                self._devices.align(pod, container)
                self._devices.allocate(pod, container, survivor=runs)
            check_fit(
                pod,
                [r.pod for r in self._pods.records() if r.active and r.pod.metadata.uid != uid],
                self._published(),
                self._devices.in_use(),
                holds_devices=bool(self._devices.held_by(uid)),
            )
        except AdmissionError:
            raise
        except KubeletError as error:
            raise AdmissionError(
                "UnexpectedAdmissionError",
                f"Allocate failed due to {error}, which is unexpected",
            ) from error

    def _reject(self, pod: Pod, error: AdmissionError) -> None:
        self._pods.mark(
            pod.metadata.uid,
            "Failed",
            admitted=False,
            reason=error.reason,
            message=f"Pod was rejected: {error.message}",
            started=self._wall_clock(),
        )
        self._journal.note("rejected", pod.key, f"{error.reason}: {error.message}")
        self._settled(pod.metadata.uid)

    def _terminate(self, pod: Pod) -> None:
        self._runtime.kill(pod.metadata.uid)
        record = self._pods.get(pod.metadata.uid)
        if record is not None and record.active:
            self._pods.mark(pod.metadata.uid, "Succeeded", admitted=record.admitted is True)
        self._remove(pod)

    def _drop(self, uid: str) -> None:
        self._runtime.kill(uid)
        record = self._pods.drop(uid)
        if record is not None:
            self._journal.note("forgotten", record.pod.key, "")
            self._settled(uid)
