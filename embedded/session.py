"""One run of the demo from the first pod to the verdict: arrivals, faults, settling, the books."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from embedded.arrivals import Arrivals, ListedArrivals, Waiting
from embedded.cluster import Cluster
from embedded.fault_injection import FaultInjection
from embedded.fault_script import ScriptedFault
from embedded.faults import Fault
from embedded.kubelet import ContainerView
from embedded.ledger import ContainerLife, Mismatch, check_lives
from embedded.picture import Picture, count_pods, draw_row
from embedded.reports import (
    LeftOut,
    Report,
    count_reasons,
    list_doubles,
    refusal_of,
    requests_of,
    split_honoured,
)
from embedded.story import tell_story
from embedded.workload import NAMESPACE, RESOURCE, PodPlan, render_pod
from runtime.errors import ConflictError, KubeError
from runtime.kube import KubeClient
from runtime.objects import Pod, PodList
from topology.wire import ASSIGNMENT_KEY

VISIBLE_DEVICES: Final = "NVIDIA_VISIBLE_DEVICES"
_TICK: Final = 0.1
# Nothing may have happened for so long (seconds) before the run counts as settled: longer than
# plugins take to publish what was allocated, which wakes waiting pods once more.
_QUIET: Final = 1.5
_SETTLE_DEADLINE: Final = 60.0
# What a container without GPUs may carry in the variable.
_NOTHING: Final = ("", "void", "none")


class Session:
    """A run over a started cluster. `look` is called with a picture at each tick."""

    def __init__(
        self,
        cluster: Cluster,
        arrivals: Arrivals,
        faults: Sequence[Fault],
        *,
        left_out: LeftOut,
        stopping: threading.Event,
        look: Callable[[Picture], None],
        judge: bool,
        script: Sequence[ScriptedFault] = (),
    ) -> None:
        self._cluster = cluster
        self._arrivals = arrivals
        self._left_out = left_out
        self._stopping = stopping
        self._look = look
        self._judge = judge
        self._injection = FaultInjection(cluster, faults, stopping, script)
        self._backlog: list[PodPlan] = []
        self._began = time.monotonic()
        self._settled = False

    def run(self, *, go_on: bool = False) -> None:
        """Create the pods, do the faults, and return when all has settled or `stopping` is set.

        The scheduler is stopped then, so that the books are made of what holds; not if `go_on`.
        """
        self._began = time.monotonic()
        self._injection.start()
        while not self._stopping.is_set():
            now = self._now()
            waiting = self._waiting()
            self._backlog += self._arrivals.due(now, waiting)
            create_due(self._cluster.client, self._backlog)
            self._show("pods arrive")
            if self._arrivals.over(now, waiting) and not self._backlog:
                break
            self._stopping.wait(_TICK)
        self._settle(go_on=go_on)

    def keep_showing(self, message: str) -> None:
        """Go on with the view until `stopping` is set, for ``--serve``."""
        while not self._stopping.wait(_TICK * 5):
            self._show(message)

    def picture(self, message: str = "", *, judge: bool | None = None) -> Picture:
        """Return how it stands; `judge` overrides whether the best sets left are looked for."""
        pods = self._cluster.observation.pods()
        names = {uid: pod.metadata.name for uid, pod in pods.items()}
        rows = []
        for name, node in self._cluster.nodes.items():
            state = self._cluster.observation.state_of(name)
            holders = {
                uuid: names.get(view.uid, view.pod)
                for view in node.kubelet.containers()
                if view.running
                for uuid in seen_gpus(view)
            }
            rows.append(
                draw_row(
                    name,
                    node.spec.machine.name,
                    self._cluster.observation.topology_of(name),
                    holders,
                    state.unhealthy if state else (),
                    judge=self._judge if judge is None else judge,
                )
            )
        return Picture(
            seconds=self._now(),
            message=message,
            rows=tuple(rows),
            counts=count_pods(pods.values()),
            notes=self._injection.notes(),
        )

    def report(self, startup_seconds: float, seconds: float) -> Report:
        """Make the books from a fresh list of pods and from what every container saw."""
        pods = self._list_pods()
        lives = self._lives(pods)
        annotations = {uid: pod.metadata.annotation(ASSIGNMENT_KEY) for uid, pod in pods.items()}
        verdict = check_lives(lives, annotations, self._injection.taken())
        mismatched = [*verdict.mismatched, *_unseen(pods.values(), lives)]
        honoured, completed_honoured = split_honoured(verdict, pods)
        counts = count_pods(pods.values())
        specs = [node.spec for node in self._cluster.nodes.values()]
        held = {(life.node, uuid) for life in lives if life.ended is None for uuid in life.gpus}
        listed = self._arrivals if isinstance(self._arrivals, ListedArrivals) else None
        left_out = msgspec.structs.replace(self._left_out, not_reached=listed.left if listed else 0)
        return Report(
            nodes=len(specs),
            gpus=sum(len(spec.machine.gpus) for spec in specs),
            gpus_in_use=len(held),
            machines=dict(Counter(spec.machine.name for spec in specs)),
            pods=counts.created,
            bound=counts.bound,
            running=counts.running,
            pending=counts.pending,
            failed=counts.failed,
            completed=counts.completed,
            honoured=honoured,
            completed_honoured=completed_honoured,
            mismatched=len(mismatched),
            drifted=len(verdict.drifted),
            double_allocated=len(verdict.double_allocated),
            pending_reasons=count_reasons(
                [
                    refusal_of(pod)
                    for pod in pods.values()
                    if pod.spec.node_name is None and not pod.finished
                ]
            ),
            failed_reasons=count_reasons(
                [
                    f"{pod.status.reason}: {pod.status.message}"
                    for pod in pods.values()
                    if pod.status.phase == "Failed"
                ]
            ),
            mismatches=tuple(mismatched),
            doubles=list_doubles(verdict),
            faults=self._injection.reports(),
            story=tell_story(self._cluster, self._injection.touched()),
            restarts=self._restarts(),
            left_out=left_out,
            settled=self._settled,
            full_after_seconds=listed.full_since if listed else None,
            startup_seconds=round(startup_seconds, 2),
            seconds=round(seconds, 2),
        )

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _waiting(self) -> Waiting:
        counts = count_pods(self._cluster.observation.pods().values())
        reasons = self._cluster.scheduler.pending_reasons()
        refused = sum(reason != "" for reason in reasons.values())
        pending = counts.pending + len(self._backlog)
        return Waiting(pending, min(refused, pending), counts.completed)

    def _settle(self, *, go_on: bool) -> None:
        """Wait until no fault is open, nothing is tried, and what is bound has started."""
        end = time.monotonic() + _SETTLE_DEADLINE
        quiet_since: float | None = None
        listed = isinstance(self._arrivals, ListedArrivals)
        while not self._stopping.is_set() and time.monotonic() < end:
            self._show("settling")
            if not self._injection.over():
                end = time.monotonic() + _SETTLE_DEADLINE
            elif listed and all(self._cluster.scheduler.pending_reasons().values()):
                break
            elif not listed and self._cluster.scheduler.idle:
                quiet_since = quiet_since or time.monotonic()
                if time.monotonic() - quiet_since >= _QUIET:
                    break
            else:
                quiet_since = None
            self._stopping.wait(_TICK)
        # Pods of a list end and are replaced for ever: binding stops, what is bound may start.
        if not go_on:
            self._cluster.scheduler.stop()
        while not self._stopping.is_set() and time.monotonic() < end:
            if self._injection.over() and not self._starting():
                self._settled = True
                return
            self._show("settling")
            self._stopping.wait(_TICK)

    def _starting(self) -> bool:
        return any(
            pod.spec.node_name is not None and pod.status.phase == "Pending"
            for pod in self._cluster.observation.pods().values()
        )

    def _show(self, message: str) -> None:
        self._look(self.picture(message))

    def _list_pods(self) -> dict[str, Pod]:
        try:
            pages = [*self._cluster.client.list_pages("/api/v1/pods")]
        except KubeError:
            # Broken off while the API server was away: the last that was seen of it.
            return self._cluster.observation.pods()
        return {
            pod.metadata.uid: pod
            for page in pages
            for pod in msgspec.json.decode(page, type=PodList).items
        }

    def _lives(self, pods: dict[str, Pod]) -> list[ContainerLife]:
        lives = []
        for name, node in self._cluster.nodes.items():
            for view in node.kubelet.containers():
                pod = pods.get(view.uid)
                requested = requests_of(pod, RESOURCE) if pod else {}
                lives.append(
                    ContainerLife(
                        node=name,
                        pod=f"{view.namespace}/{view.pod}",
                        uid=view.uid,
                        container=view.container,
                        requested=requested.get(view.container, 0),
                        gpus=seen_gpus(view),
                        started=view.started,
                        ended=view.ended,
                    )
                )
        return lives

    def _restarts(self) -> dict[str, int]:
        daemons = [self._cluster.extender, *(n.plugin for n in self._cluster.nodes.values())]
        return {daemon.name: daemon.starts - 1 for daemon in daemons if daemon.starts > 1}


def create_due(client: KubeClient, backlog: list[PodPlan]) -> None:
    """Create the pods in their order; those that the API server did not take stay in `backlog`."""
    path = f"/api/v1/namespaces/{NAMESPACE}/pods"
    while backlog:
        try:
            client.post(path, render_pod(backlog[0]), timeout=5)
        except ConflictError:
            pass  # it was taken, and the answer was cut off: names are given once
        except KubeError:
            return
        del backlog[0]


def seen_gpus(view: ContainerView) -> frozenset[str]:
    """Return the GPUs that a container's environment names."""
    text = view.env.get(VISIBLE_DEVICES, "")
    return frozenset() if text in _NOTHING else frozenset(text.split(","))


def _unseen(pods: Iterable[Pod], lives: Iterable[ContainerLife]) -> list[Mismatch]:
    """Return the pods that are said to run though none of their containers ever started."""
    started = {life.uid for life in lives}
    return [
        Mismatch(pod.spec.node_name or "", pod.key, "", (), (), "no container of it was started")
        for pod in pods
        if pod.status.phase == "Running" and pod.metadata.uid not in started
    ]
