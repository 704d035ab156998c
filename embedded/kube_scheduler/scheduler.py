"""kube-scheduler's loop: one pod at a time through filters and extender, bound in the background.

What it does as the real one (1.36 with our configuration): only pods that name it, own filters
before the extender, the extender only for pods that ask for the managed resource, the chosen node
assumed at once, bind concurrent, forget and retry on error, a PodScheduled condition written only
when its text changes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import structlog

from embedded.kube_scheduler.amounts import request_of
from embedded.kube_scheduler.board import Board, WaitingPod
from embedded.kube_scheduler.bodies import default_binding, failed_scheduling, unschedulable
from embedded.kube_scheduler.cache import NodeInfo
from embedded.kube_scheduler.election import Election
from embedded.kube_scheduler.events import Plugin
from embedded.kube_scheduler.extender import Extender, ExtenderError
from embedded.kube_scheduler.filters import Refusal, describe_refusal, refuse_node
from embedded.kube_scheduler.preemption import Eviction, find_eviction
from embedded.kube_scheduler.queue import Backoff
from embedded.kube_scheduler.scores import choose_node
from embedded.kube_scheduler.sinks import NodeSink, PodSink
from runtime.errors import KubeError
from runtime.kube import KubeClient
from runtime.objects import Node, Pod
from runtime.reflector import Reflector

_log = structlog.get_logger("kube-scheduler")

# kube-scheduler binds in a goroutine each; 16 threads are more than 12 nodes ever fill.
_BINDERS: Final = 16
_STATUS_TIMEOUT: Final = 5.0
_EVENTS: Final = "/apis/events.k8s.io/v1/namespaces/{}/events"
# A pod that waits may be looked at again at most this often (seconds); kube-scheduler's 1 to 10.
DEFAULT_BACKOFF: Final = Backoff(initial=0.25, maximum=2.0)


class Scheduler:
    """The scheduler of an embedded cluster, over its API server and the extender.

    `extender` None places pods with GPUs as any others, which a stock kube-scheduler does. With
    an `election` it works while it leads, and ends when it has lost its Lease.
    """

    def __init__(
        self,
        client: KubeClient,
        extender: Extender | None,
        *,
        resource: str,
        scheduler_name: str,
        election: Election | None = None,
        backoff: Backoff = DEFAULT_BACKOFF,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._extender = extender
        self._resource = resource
        self.board = Board(scheduler_name, backoff, clock)
        self._pods = Reflector(
            client,
            "/api/v1/pods",
            dict[str, Any],
            PodSink(self.board),
            name="kube-scheduler pods",
            last_pause=1.0,
        )
        self._nodes = Reflector(
            client,
            "/api/v1/nodes",
            Node,
            NodeSink(self.board),
            name="kube-scheduler nodes",
            last_pause=1.0,
        )
        self._binders = ThreadPoolExecutor(_BINDERS, thread_name_prefix="binder")
        self._binding = 0
        self._written: dict[str, str] = {}
        self._election = election
        self._leads = threading.Event()
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for name, target in (
                ("kube-scheduler nodes", self._nodes.run),
                ("kube-scheduler pods", self._pods.run),
                ("kube-scheduler loop", self._loop),
                ("kube-scheduler election", self._lead),
            )
        ]

    def start(self) -> None:
        """Start the watches and the loop."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the loop and the watches; binds under way are finished."""
        self._end()
        self._binders.shutdown(wait=True, cancel_futures=True)
        if self._election is not None:
            self._election.resign()
        if self._extender is not None:
            self._extender.close()

    def kill(self) -> None:
        """End as a killed process does: nothing more is written, and the Lease stays."""
        self._end()
        self._binders.shutdown(wait=False, cancel_futures=True)
        if self._extender is not None:
            self._extender.close()

    def _end(self) -> None:
        self.board.close()
        self._stopping.set()
        self._pods.stop()
        self._nodes.stop()
        for thread in self._threads:
            thread.join(10)

    def _lead(self) -> None:
        """Let the loop begin when this scheduler leads, and end it when it no longer does."""
        if self._election is None:
            self._leads.set()
        elif self._election.win(self._stopping):
            self._leads.set()
            self._election.keep(self._stopping)
            if not self._stopping.is_set():
                # The real process exits: what it knew of its binds is nobody's any more.
                _log.error("lost the lease")
                self.board.close()

    @property
    def alive(self) -> bool:
        """Whether it works, or waits to lead: it ends when it was told to or lost its Lease."""
        return not self.board.closed

    @property
    def idle(self) -> bool:
        """Whether nothing is tried or bound, nor will be until something happens."""
        return self._binding == 0 and self.board.idle

    def pending_reasons(self) -> dict[str, str]:
        """Return why each waiting pod (``namespace/name``) waits; "" if not yet tried."""
        with self.board.changed:
            return {
                waiting.pod.key: self.board.refusals.get(uid, "")
                for uid, waiting in self.board.waiting.items()
            }

    def _loop(self) -> None:
        # The first decision must not be made on half of the cluster.
        events = self._leads, self._nodes.synced, self._pods.synced
        while not all(event.wait(0.1) for event in events):
            if self.board.closed:
                return
        while (turn := self.board.take()) is not None:
            waiting, nodes = turn
            try:
                self._schedule(waiting, nodes)
            except ExtenderError as error:
                self._fail(waiting, f"running filter on the extender: {error}")

    def _schedule(self, waiting: WaitingPod, nodes: list[NodeInfo]) -> None:
        pod = waiting.pod
        request = request_of(pod)
        refusals: dict[str, Refusal] = {}
        feasible: dict[str, NodeInfo] = {}
        with self.board.changed:
            for info in nodes:
                seen = self.board.as_seen_by(pod, info)
                refusal = refuse_node(seen, pod, request, waiting.affinity)
                if refusal is None:
                    feasible[info.name] = info
                else:
                    refusals[info.name] = refusal
        extender = self._extender if request.get(self._resource, 0) > 0 else None
        if extender is not None and feasible:
            answer = extender.filter(waiting.whole, list(feasible))
            accepted = set(answer.node_names or ())
            for name in set(feasible) - accepted:
                refusals[name] = answer.refusal_of(name)
            feasible = {name: info for name, info in feasible.items() if name in accepted}
        if not feasible:
            self._refuse(waiting, nodes, refusals)
            return
        with self.board.changed:
            node = choose_node(feasible.values(), pod, request, waiting.affinity)
            self.board.cache.assume(pod, node)
            self._binding += 1
        self._binders.submit(self._bind, waiting, node, extender)

    def _bind(self, waiting: WaitingPod, node: str, extender: Extender | None) -> None:
        meta = waiting.pod.metadata
        try:
            if extender is not None:
                extender.bind(meta.namespace, meta.name, meta.uid, node)
            else:
                self._client.post(
                    f"/api/v1/namespaces/{meta.namespace}/pods/{meta.name}/binding",
                    default_binding(waiting.pod, node),
                    timeout=_STATUS_TIMEOUT,
                )
        except (ExtenderError, KubeError) as error:
            _log.warning("bind failed", pod=waiting.pod.key, node=node, error=str(error))
            self._fail(waiting, f"binding rejected: {error}")
        finally:
            with self.board.changed:
                self._binding -= 1

    def _refuse(
        self, waiting: WaitingPod, nodes: list[NodeInfo], refusals: Mapping[str, Refusal]
    ) -> None:
        pod = waiting.pod
        text = describe_refusal(len(nodes), (refusal.text for refusal in refusals.values()))
        eviction = self._find_eviction(waiting, nodes, refusals)
        if eviction is not None:
            self.board.nominate(pod, eviction)
            self._binders.submit(self._evict, pod, eviction)
        plugins = {refusal.plugin for refusal in refusals.values()}
        self.board.refuse(pod.metadata.uid, text, plugins or set(Plugin))
        nominated = eviction.node if eviction is not None else None
        self._write_condition(waiting, "Unschedulable", text, nominated)

    def _find_eviction(
        self, waiting: WaitingPod, nodes: list[NodeInfo], refusals: Mapping[str, Refusal]
    ) -> Eviction | None:
        pod = waiting.pod
        request = request_of(pod)
        if not self.board.may_preempt(pod.metadata.uid):
            return None
        with self.board.changed:
            return find_eviction(
                (
                    self.board.as_seen_by(pod, info)
                    for info in nodes
                    if info.name in refusals and refusals[info.name].resolvable
                ),
                pod,
                lambda info: refuse_node(info, pod, request, waiting.affinity) is None,
            )

    def _evict(self, pod: Pod, eviction: Eviction) -> None:
        for victim in eviction.victims:
            meta = victim.metadata
            _log.info("evicted", pod=victim.key, node=eviction.node, preemptor=pod.key)
            try:
                self._client.delete(
                    f"/api/v1/namespaces/{meta.namespace}/pods/{meta.name}",
                    {"preconditions": {"uid": meta.uid}},
                    timeout=_STATUS_TIMEOUT,
                )
            except KubeError as error:
                _log.warning("not evicted", pod=victim.key, error=str(error))

    def _fail(self, waiting: WaitingPod, text: str) -> None:
        self.board.fail(waiting.pod.metadata.uid, text)
        self._write_condition(waiting, "SchedulerError", text)

    def _write_condition(
        self, waiting: WaitingPod, reason: str, text: str, nominated: str | None = None
    ) -> None:
        """Write PodScheduled=False if it says something new: each write is an event to others."""
        meta = waiting.pod.metadata
        said = f"{reason}: {text} {nominated or ''}"
        if self.board.closed or self._written.get(meta.uid) == said:
            return
        body = unschedulable(waiting.pod, reason, text, nominated)
        path = f"/api/v1/namespaces/{meta.namespace}/pods/{meta.name}/status"
        try:
            self._client.patch(path, body, timeout=_STATUS_TIMEOUT)
            self._client.post(_EVENTS.format(meta.namespace), failed_scheduling(waiting.pod, text))
        except KubeError as error:
            _log.info("condition not written", pod=waiting.pod.key, error=str(error))
        else:
            self._written[meta.uid] = said
