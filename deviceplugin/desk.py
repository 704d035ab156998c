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
    all_strict,
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
from deviceplugin.lookup import Lookup
from deviceplugin.metrics import FAILED, OK, REFUSED, Metrics
from runtime.objects import Pod
from topology.errors import SelectionError
from topology.gpuset import EMPTY, GpuSet, gpuset
from topology.model import NodeTopology

CONFIRMED_SECONDS: Final = 1.0
"""How long a List counts as confirmation in the Allocate that follows; kubelet takes under 1 ms."""

AWAIT_ALLOCATE_SECONDS: Final = 5.0
"""How long an Allocate is expected after a preference; then kubelet has changed its mind."""

LEAST_SECONDS: Final = 0.05
"""What List is given at least; kubelet answers within 1 to 13 ms."""

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
        self._lookup = Lookup(get_pod, resource, clock)
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

    @property
    def holdings(self) -> Holdings | None:
        """What kubelet said last, None before its first answer."""
        return self._last

    def prefer(self, requests: Sequence[Request]) -> tuple[Plan, ...]:
        """Return the set to prefer for each container; raises AllocationError to refuse the pod."""
        # The wait for a reading that is under way counts too.
        deadline = self._clock() + self._patience.admission
        with self._lock:
            rest = AWAIT_ALLOCATE_SECONDS
            try:
                return tuple(self._prefer(request, deadline) for request in requests)
            except AllocationError:
                self._metrics.preferred.labels(REFUSED).inc()
                rest = self._patience.quiet
                raise
            except Exception:  # noqa: BLE001 -- see below
                # Passed on it would fail every pod of the node for good.
                _log.exception("no preference, by a fault of ours")
                self._metrics.preferred.labels(str(Outcome.DRIFT)).inc()
                self._metrics.drift.labels(str(Drift.INTERNAL)).inc()
                return tuple(Plan((), Outcome.DRIFT, Drift.INTERNAL) for _ in requests)
            finally:
                self._rest_from = self._clock() + rest

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
            return self._list(self._patience.pod_resources)
        finally:
            self._lock.release()

    def _prefer(self, request: Request, deadline: float) -> Plan:
        pods = self._pods()
        certain = True
        try:
            left = max(LEAST_SECONDS, deadline - self._clock())
            holdings = self._list(min(self._patience.pod_resources, left))
        except PodResourcesError as error:
            _log.warning("kubelet does not say which pod is asking", problem=str(error))
            holdings = self._last or Holdings()
            certain = False
            who = identify_blindly(holdings, pods, self._resource, request.size)
        else:
            who = identify(holdings, pods, self._resource, request.size)
            if who.unseen:
                who, pods = self._lookup.settle(who, holdings, pods, request.size, deadline)
        begun = self._clock()
        inventory = self._board.read()
        besides = frozenset([who.asking.pod.key]) if who.asking else who.candidates
        held = live_holders(holdings, pods, besides=besides)
        promised = promised_uuids(pods, holdings, asking=who.asking, candidates=who.candidates)
        if not certain:
            # What kubelet said before may be over. It offers what it takes for free, so these GPUs
            # are spared where that can be, but nobody is refused for them.
            promised, held = promised | held.keys(), {}
        where = inventory.topology.position_of()
        circumstances = Circumstances(
            unhealthy=inventory.failed(),
            held=_set_of(held, where),
            promised=_set_of(promised, where),
        )
        wanted = (
            read_wanted(who.asking, where)
            if who.asking
            else Wanted(None, who.drift, all_strict(who.candidates, pods))
        )
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

    def _list(self, timeout: float) -> Holdings:
        try:
            holdings = self._pod_resources.list(timeout)
        except PodResourcesError:
            self._metrics.pod_resources.labels(FAILED).inc()
            raise
        self._metrics.pod_resources.labels(OK).inc()
        self._last = holdings
        self._on_holdings()
        return holdings

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
