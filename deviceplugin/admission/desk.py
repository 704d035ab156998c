"""Where kubelet's questions about one resource are answered, one at a time.

kubelet's books are asked during GetPreferredAllocation alone (`admission.ledger` says why);
Allocate touches memory only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

import msgspec
import structlog

from deviceplugin.admission.allocation import (
    Chooser,
    Circumstances,
    Plan,
    Request,
    Taken,
    Wanted,
    check_devices,
    plan,
)
from deviceplugin.admission.asking import (
    Identified,
    all_strict,
    identify,
    identify_blindly,
    live_holders,
    promised_uuids,
    read_wanted,
)
from deviceplugin.admission.ledger import Ledger
from deviceplugin.admission.lookup import Lookup
from deviceplugin.admission.shared_allocation import SharedCircumstances, plan_shared
from deviceplugin.admission.traces import Traces
from deviceplugin.errors import (
    AllocationError,
    PodResourcesError,
    RequestError,
    StrictRefusalError,
)
from deviceplugin.injection.answer import ContainerAnswer, answer
from deviceplugin.metrics import Metrics
from deviceplugin.outcomes import OK, REFUSED, Drift, Outcome
from deviceplugin.pods.holdings import Reading
from deviceplugin.resources.devices import Resource
from deviceplugin.resources.stock import Stock
from runtime.objects import Pod
from topology.errors import SelectionError
from topology.gpuset import EMPTY, GpuSet, gpuset
from topology.model import NodeTopology
from topology.tables import TABLE_GPUS

CONFIRMED_SECONDS: Final = 1.0
"""How long a List counts as confirmation in the Allocate that follows; kubelet takes under 1 ms."""

AWAIT_ALLOCATE_SECONDS: Final = 5.0
"""How long an Allocate is expected after a preference; then kubelet has changed its mind."""

LEAST_SECONDS: Final = 0.05
"""What List is given at least; kubelet answers within 1 to 13 ms."""

_log = structlog.get_logger("deviceplugin.desk")


class Patience(msgspec.Struct, frozen=True):
    """How long to wait, in seconds.

    `pod_resources` for one List, `admission` for all that is asked in one admission, `quiet` for
    admissions to have rested before a reading outside of one.
    """

    pod_resources: float = 1.0
    admission: float = 2.0
    quiet: float = 0.1


_PATIENCE = Patience()

Later = Callable[[Callable[[], None]], None]
"""Runs what can wait until the answer is out: a line in the log costs more than a choice."""


def _at_once(work: Callable[[], None]) -> None:
    work()


class Desk:
    """Answers GetPreferredAllocation and Allocate for one resource.

    `pods` returns what the watch knows; `get_pod` asks the API server for one pod (None: there is
    none) and raises KubeError. `chooser_for` makes the choice among a topology's GPUs. All desks
    of a node share one ledger.
    """

    def __init__(
        self,
        *,
        stock: Callable[[], Stock],
        resource: str,
        pods: Callable[[], Mapping[str, Pod]],
        get_pod: Callable[[str, float], Pod | None],
        ledger: Ledger,
        chooser_for: Callable[[NodeTopology], Chooser],
        metrics: Metrics,
        patience: Patience = _PATIENCE,
        clock: Callable[[], float] = time.monotonic,
        traces: Traces | None = None,
    ) -> None:
        self._stock = stock
        self._resource = resource
        self._pods = pods
        self._lookup = Lookup(get_pod, resource, clock)
        self._ledger = ledger
        self._chooser_for = chooser_for
        self._metrics = metrics
        self._patience = patience
        self._clock = clock
        self._traces = traces or Traces()
        self._confirmed: dict[str, str] = {}
        self._confirmed_until = float("-inf")

    def prefer(self, requests: Sequence[Request], later: Later = _at_once) -> tuple[Plan, ...]:
        """Return the set to prefer for each container; raises AllocationError to refuse the pod.

        What need not be done before the answer is out is handed to `later`.
        """
        # The wait for a reading that is under way counts too.
        deadline = self._clock() + self._patience.admission
        with self._ledger.lock:
            rest = AWAIT_ALLOCATE_SECONDS
            try:
                return tuple(self._prefer(request, deadline, later) for request in requests)
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
                self._ledger.rest(rest)

    def allocate(self, containers: Sequence[Sequence[str]]) -> tuple[ContainerAnswer, ...]:
        """Return what each container is given; raises AllocationError to fail the pod.

        A device is refused as held only when the List of the GetPreferredAllocation just before
        showed it with another pod that is still alive. Older knowledge is not used: it would
        fail a restart that kubelet has every right to.
        """
        since = self._traces.now()
        with self._ledger.lock:
            stock = self._stock()
            resource = stock.resource(self._resource)
            held = self._still_held()
            try:
                answers = tuple(
                    answer(
                        check_devices(asked, resource, held), resource, stock.config, stock.facts
                    )
                    for asked in containers
                )
            except AllocationError as error:
                self._metrics.allocations.labels(REFUSED).inc()
                _log.error("allocate refused", problem=str(error))
                self._traces.allocated(containers, since, str(error))
                raise
            finally:
                self._ledger.rest(self._patience.quiet)
            self._metrics.allocations.labels(OK).inc(len(answers))
            self._traces.allocated(containers, since)
        return answers

    def _prefer(self, request: Request, deadline: float, later: Later) -> Plan:
        since = self._traces.now()
        pods = self._pods()
        certain = True
        try:
            left = max(LEAST_SECONDS, deadline - self._clock())
            reading = self._ledger.ask(min(self._patience.pod_resources, left))
        except PodResourcesError as error:
            _log.warning("kubelet does not say which pod is asking", problem=str(error))
            reading = self._ledger.last or Reading()
            certain = False
            who = identify_blindly(reading.of(self._resource), pods, self._resource, request.size)
        else:
            holdings = reading.of(self._resource)
            who = identify(holdings, pods, self._resource, request.size)
            if who.unseen:
                who, pods = self._lookup.settle(who, holdings, pods, request.size, deadline)
        begun = self._clock()
        everything = reading.everything()
        besides = frozenset([who.asking.pod.key]) if who.asking else who.candidates
        held = live_holders(everything, pods, besides=besides)
        promised = promised_uuids(pods, everything, asking=who.asking, candidates=who.candidates)
        if not certain:
            # What kubelet said before may be over. It offers what it takes for free, so these GPUs
            # are spared where that can be, but nobody is refused for them.
            promised, held = promised | held.keys(), {}
        stock = self._stock()
        resource = stock.resource(self._resource)
        wanted = self._wanted(who, resource, pods)
        found = self._plan(request, wanted, _Known(held, promised), stock, who)
        if found.drift is not None:
            later(partial(_tell_drift, who, wanted, found))
        self._confirmed = held
        self._confirmed_until = self._clock() + CONFIRMED_SECONDS
        self._metrics.choice_seconds.observe(self._clock() - begun)
        self._traces.preferred(who.asking, found.uuids, str(found.outcome), since)
        return found

    def _wanted(self, who: Identified, resource: Resource, pods: Mapping[str, Pod]) -> Wanted:
        if who.asking is None:
            return Wanted(None, who.drift, all_strict(who.candidates, pods))
        names = {
            name
            for device in resource.devices
            for name in (device.id, device.uuid, device.gpu, device.alias)
        }
        return read_wanted(who.asking, names)

    def _plan(
        self, request: Request, wanted: Wanted, known: _Known, stock: Stock, who: Identified
    ) -> Plan:
        pod = _name(who)
        try:
            found = self._choose(request, wanted, known, stock)
        except (RequestError, SelectionError) as error:
            # A question that contradicts itself is no reason to fail a pod: kubelet then chooses.
            _log.error("no preference", pod=pod, size=request.size, problem=str(error))
            if wanted.strict:
                raise StrictRefusalError(wanted.uuids, str(error)) from error
            found = Plan((), Outcome.DRIFT, Drift.BAD_REQUEST)
        except AllocationError as error:
            _log.error("preference refused", pod=pod, size=request.size, problem=str(error))
            raise
        self._metrics.preferred.labels(str(found.outcome)).inc()
        if found.promised_taken:
            self._metrics.promised_taken.inc(found.promised_taken)
        if found.drift is not None:
            self._metrics.drift.labels(str(found.drift)).inc()
        return found

    def _choose(self, request: Request, wanted: Wanted, known: _Known, stock: Stock) -> Plan:
        resource, topology = stock.resource(self._resource), stock.inventory.topology
        choose = self._chooser_for(topology)
        if not resource.whole:
            return plan_shared(
                request,
                wanted,
                SharedCircumstances(known.held, known.promised),
                resource,
                policy=stock.config.flags.plugin.shared_devices_allocation_policy,
                # Beyond the tables each choice is a search, and here there is one for each device.
                choose=choose if len(topology.gpus) <= TABLE_GPUS else None,
            )
        taken = Taken(known.held)
        circumstances = Circumstances(
            unhealthy=stock.inventory.failed(),
            held=gpuset(
                device.position for device in resource.devices if taken.by(device) is not None
            ),
            promised=_places(known.promised, topology.position_of()),
        )
        return plan(request, wanted, circumstances, topology, choose)

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


class _Known(msgspec.Struct, frozen=True):
    """Device ids that live pods hold, and uuids that were promised to pods to come."""

    held: dict[str, str]
    promised: frozenset[str]


def _tell_drift(who: Identified, wanted: Wanted, found: Plan) -> None:
    _log.warning(
        "drift",
        pod=_name(who),
        reason=str(found.drift),
        wanted=wanted.uuids,
        preferred=found.uuids,
    )


def _name(who: Identified) -> str:
    return who.asking.pod.key if who.asking else ""


def _places(uuids: frozenset[str], where: Mapping[str, int]) -> GpuSet:
    if not uuids:
        return EMPTY
    return gpuset(where[uuid] for uuid in uuids if uuid in where)
