"""Where kubelet's questions are answered, one at a time.

Everything that touches PodResources List goes through one lock, because of what List does inside
kubelets before 1.38: between the moment kubelet sets devices aside and the moment it notes them
for the pod, a List makes it forget them, and the next pod may get the same GPU. So List is
called during GetPreferredAllocation (nothing is set aside yet), and otherwise only when no
admission has been seen for a while. Allocate touches memory only.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import msgspec
import structlog

from deviceplugin.admission import (
    Identified,
    identify,
    identify_blindly,
    live_holders,
    promised_uuids,
    read_wanted,
)
from deviceplugin.allocation import (
    Chooser,
    Circumstances,
    Drift,
    Outcome,
    Plan,
    Request,
    Wanted,
    environment,
    plan,
)
from deviceplugin.errors import (
    AllocationError,
    PodResourcesError,
    RequestError,
    StrictRefusalError,
)
from deviceplugin.holdings import Holdings
from deviceplugin.inventory import Board, Inventory
from deviceplugin.metrics import FAILED, OK, REFUSED, Metrics
from runtime.errors import KubeError
from runtime.objects import Pod
from topology.errors import SelectionError
from topology.gpuset import EMPTY, GpuSet, gpuset
from topology.model import NodeTopology

CONFIRMED_SECONDS: Final = 1.0
"""How long a List counts as confirmation in the Allocate that follows; kubelet takes under 1 ms."""

AWAIT_ALLOCATE_SECONDS: Final = 5.0
"""How long an Allocate is expected after a preference; then kubelet has changed its mind."""

FORGET_SECONDS: Final = 10.0
"""How long a pod that the API server does not know (a static one) is not asked for again."""

_log = structlog.get_logger("deviceplugin.desk")


class HoldingsReader(Protocol):
    """kubelet's PodResources."""

    def list(self, timeout: float) -> Holdings:
        """Return who holds what; raises PodResourcesError."""


class Patience(msgspec.Struct, frozen=True):
    """How long to wait, in seconds.

    `pod_resources` for one List, `admission` for all that is asked in one admission, `quiet` for
    admissions to have rested before a reading outside of one.
    """

    pod_resources: float = 1.0
    admission: float = 2.0
    quiet: float = 0.1


_PATIENCE = Patience()


class Desk:
    """Answers GetPreferredAllocation and Allocate, and reads back what became of them.

    `pods` returns what the watch knows; `get_pod` asks the API server for one pod (None: there is
    none) and raises KubeError. `chooser_for` makes the choice among a topology's GPUs.
    `on_holdings` is called after every answer of List, which is `holdings` then.
    """

    def __init__(
        self,
        *,
        board: Board,
        resource: str,
        pods: Callable[[], Mapping[str, Pod]],
        get_pod: Callable[[str, float], Pod | None],
        pod_resources: HoldingsReader,
        chooser_for: Callable[[NodeTopology], Chooser],
        metrics: Metrics,
        patience: Patience = _PATIENCE,
        on_holdings: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._board = board
        self._resource = resource
        self._pods = pods
        self._get_pod = get_pod
        self._pod_resources = pod_resources
        self._chooser_for = chooser_for
        self._metrics = metrics
        self._patience = patience
        self._on_holdings = on_holdings
        self._clock = clock
        self._lock = threading.Lock()
        self._last: Holdings | None = None
        self._confirmed: dict[str, str] = {}
        self._confirmed_until = float("-inf")
        self._rest_from = float("-inf")
        self._absent: dict[str, float] = {}

    @property
    def holdings(self) -> Holdings | None:
        """What kubelet said last, None before its first answer."""
        return self._last

    def prefer(self, requests: Sequence[Request]) -> tuple[Plan, ...]:
        """Return the set to prefer for each container; raises AllocationError to refuse the pod."""
        with self._lock:
            try:
                return tuple(self._prefer(request) for request in requests)
            except AllocationError:
                self._metrics.preferred.labels(REFUSED).inc()
                raise
            finally:
                self._rest_from = self._clock() + AWAIT_ALLOCATE_SECONDS

    def allocate(self, containers: Sequence[Sequence[str]]) -> tuple[dict[str, str], ...]:
        """Return the environment of each container; raises AllocationError to fail the pod.

        A GPU is refused as held only when the List of the GetPreferredAllocation just before
        showed it with another pod that is still alive. Older knowledge is not used: it would
        fail a restart that kubelet has every right to.
        """
        with self._lock:
            inventory = self._board.read()
            held = self._still_held()
            try:
                answers = tuple(
                    environment(asked, inventory.topology, inventory.failed(), held)
                    for asked in containers
                )
            except AllocationError as error:
                self._metrics.allocations.labels(REFUSED).inc()
                _log.error("allocate refused", problem=str(error))
                raise
            finally:
                self._rest_from = self._clock() + self._patience.quiet
            self._metrics.allocations.labels(OK).inc(len(answers))
        return answers

    def read_back(self) -> Holdings | None:
        """Ask kubelet who holds what, None if an admission is or may be under way.

        Raises PodResourcesError.
        """
        if not self._lock.acquire(blocking=False):
            return None
        try:
            if self._clock() < self._rest_from:
                return None
            return self._list()
        finally:
            self._lock.release()

    def _prefer(self, request: Request) -> Plan:
        deadline = self._clock() + self._patience.admission
        pods = self._pods()
        try:
            holdings = self._list()
        except PodResourcesError as error:
            _log.warning("kubelet does not say which pod is asking", problem=str(error))
            holdings = self._last or Holdings()
            who = identify_blindly(holdings, pods, self._resource, request.size)
        else:
            who = identify(holdings, pods, self._resource, request.size)
            if who.unseen:
                who, pods = self._look_closer(who, holdings, pods, request.size, deadline)
        begun = self._clock()
        inventory = self._board.read()
        besides = frozenset([who.asking.pod.key]) if who.asking else who.candidates
        held = live_holders(holdings, pods, besides=besides)
        where = inventory.topology.position_of()
        circumstances = Circumstances(
            unhealthy=inventory.failed(),
            held=_set_of(held, where),
            promised=_set_of(
                promised_uuids(pods, holdings, asking=who.asking, candidates=who.candidates), where
            ),
        )
        wanted = read_wanted(who.asking, where) if who.asking else Wanted(None, who.drift)
        answer = self._plan(request, wanted, circumstances, inventory, who)
        self._confirmed = held
        self._confirmed_until = self._clock() + CONFIRMED_SECONDS
        self._metrics.choice_seconds.observe(self._clock() - begun)
        return answer

    def _plan(
        self,
        request: Request,
        wanted: Wanted,
        circumstances: Circumstances,
        inventory: Inventory,
        who: Identified,
    ) -> Plan:
        pod = who.asking.pod.key if who.asking else ""
        try:
            answer = plan(
                request,
                wanted,
                circumstances,
                inventory.topology,
                self._chooser_for(inventory.topology),
            )
        except (RequestError, SelectionError) as error:
            # A question that contradicts itself is no reason to fail a pod: kubelet then chooses.
            _log.error("no preference", pod=pod, size=request.size, problem=str(error))
            if wanted.strict:
                raise StrictRefusalError(wanted.uuids, str(error)) from error
            answer = Plan((), Outcome.DRIFT, Drift.BAD_REQUEST)
        except AllocationError as error:
            _log.error("preference refused", pod=pod, size=request.size, problem=str(error))
            raise
        self._metrics.preferred.labels(str(answer.outcome)).inc()
        if answer.promised_taken:
            self._metrics.promised_taken.inc(answer.promised_taken)
        if answer.drift is not None:
            self._metrics.drift.labels(str(answer.drift)).inc()
            _log.warning(
                "drift",
                pod=pod,
                reason=str(answer.drift),
                wanted=wanted.uuids,
                preferred=answer.uuids,
            )
        return answer

    def _list(self) -> Holdings:
        try:
            holdings = self._pod_resources.list(self._patience.pod_resources)
        except PodResourcesError:
            self._metrics.pod_resources.labels(FAILED).inc()
            raise
        self._metrics.pod_resources.labels(OK).inc()
        self._last = holdings
        self._on_holdings()
        return holdings

    def _look_closer(
        self,
        who: Identified,
        holdings: Holdings,
        pods: Mapping[str, Pod],
        size: int,
        deadline: float,
    ) -> tuple[Identified, Mapping[str, Pod]]:
        """Ask the API server for the pods that the watch has not shown yet, until `deadline`."""
        seen = dict(pods)
        failed = False
        now = self._clock()
        self._absent = {key: until for key, until in self._absent.items() if until > now}
        for key in who.unseen:
            if key in self._absent:
                continue
            left = deadline - self._clock()
            if left <= 0:
                failed = True
                break
            try:
                pod = self._get_pod(key, left)
            except KubeError as error:
                _log.warning("pod in admission cannot be looked up", pod=key, problem=str(error))
                failed = True
                break
            if pod is None:
                self._absent[key] = self._clock() + FORGET_SECONDS
            else:
                seen[key] = pod
        closer = identify(holdings, seen, self._resource, size)
        if failed and closer.drift is Drift.NO_POD:
            return Identified(None, Drift.API_SERVER), seen
        # With one candidate it is taken even if others could not be looked up: kubelet admits one
        # pod at a time, so it could only be another if this one was admitted without devices.
        return closer, seen

    def _still_held(self) -> dict[str, str]:
        confirmed, until = self._confirmed, self._confirmed_until
        self._confirmed, self._confirmed_until = {}, float("-inf")
        if self._clock() > until:
            return {}
        pods = self._pods()
        return {
            uuid: key
            for uuid, key in confirmed.items()
            if key not in pods or not pods[key].finished
        }


def _set_of(uuids: Mapping[str, str] | frozenset[str], where: Mapping[str, int]) -> GpuSet:
    if not uuids:
        return EMPTY
    return gpuset(where[uuid] for uuid in uuids if uuid in where)
