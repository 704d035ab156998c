"""A dry-run: where pods that do not exist would go, by the code that places those that do."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Final

import msgspec

from scheduler.engine.decision import Decision
from scheduler.engine.planner import Planner
from scheduler.engine.request import PodRequest
from scheduler.errors import DemandError
from scheduler.explain.digest import digest
from scheduler.explain.errors import ExplainError, NotThereError
from scheduler.explain.names import NameTable, pick, unpack
from scheduler.explain.question import AskedPod, Question, Reference
from scheduler.explain.record import Record
from scheduler.explain.sandbox import Sandbox
from scheduler.explain.shapes import DryRunAnswer, DryRunPod, RefusalAnswer
from scheduler.explain.stock import TraitBook, objection
from scheduler.explain.store import Store
from scheduler.explain.views import (
    REFUSED_SHOWN,
    show_decision,
    show_scores,
    show_set,
    show_strategies,
)
from scheduler.explain.waits import Waits
from scheduler.kube.inventory import Inventory
from scheduler.kube.pods import read_request

NOT_CHECKED: Final = (
    "volumes and where they can be reached",
    "affinity between pods, topology spread and host ports",
    "quotas and admission",
)

STOCK: Final = "kube-scheduler"
"""Who refuses by labels, taints and cordons."""


class DryRuns:
    """Does dry-runs over copies of a planner's state.

    `steady` is the planner's clock, `clock` gives Unix seconds.
    """

    def __init__(
        self,
        planner: Planner,
        inventory: Inventory,
        store: Store,
        traits: TraitBook,
        *,
        resource: str,
        steady: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._planner = planner
        self._inventory = inventory
        self._store = store
        self._traits = traits
        self._resource = resource
        self._steady = steady
        self._clock = clock

    async def run(self, question: Question, top: int) -> DryRunAnswer:
        """Answer a question with the `top` best nodes for each pod. Raises NotThereError.

        Between two pods the verbs have their turn: a pod holds them up for one decision.
        """
        sandbox = Sandbox(self._planner, self._inventory, question.changes)
        answers = []
        for number, pod in enumerate(question.pods):
            await asyncio.sleep(0)
            place = f"pods[{number}]"
            if isinstance(pod, Reference):
                answers.append(self._again(sandbox, pod, place, top))
            else:
                answers.append(self._new(sandbox, pod, number, top))
        return DryRunAnswer(tuple(answers), tuple(sandbox.changes), NOT_CHECKED)

    def _new(self, sandbox: Sandbox, pod: AskedPod, number: int, top: int) -> DryRunPod:
        meta = msgspec.structs.replace(
            pod.metadata,
            uid=f"dry-run {number}",
            name=pod.metadata.name or f"pod-{number}",
            namespace=pod.metadata.namespace or "default",
        )
        pod = msgspec.structs.replace(pod, metadata=meta)
        try:
            request = read_request(pod, self._resource, any_pod=True)
        except DemandError as error:
            return _hopeless(meta.namespace, meta.name, str(error))
        if request is None:
            return _hopeless(meta.namespace, meta.name, "asks for nothing")
        objections: dict[str, list[str]] = {}
        names = []
        for name in sandbox.cluster.columns.rows:
            said = objection(name, self._traits.of(name), pod)
            if said is None:
                names.append(name)
            else:
                objections.setdefault(said, []).append(name)
        refusals = tuple(
            RefusalAnswer(STOCK, reason, False, len(nodes), tuple(sorted(nodes)[:REFUSED_SHOWN]))
            for reason, nodes in objections.items()
        )
        return self._place(sandbox, request, names, refusals, top)

    def _again(self, sandbox: Sandbox, asked: Reference, place: str, top: int) -> DryRunPod:
        """Decide anew on a pod that was decided on, over the nodes that were offered for it."""
        namespace, _, name = asked.pod.partition("/")
        try:
            record = self._store.find(namespace, name, self._clock())
        except ExplainError as error:
            raise NotThereError(f"{place}.pod", str(error)) from None
        request = record.request
        sandbox.forget(self._inventory.bound(request.uid), request.uid)
        known = sandbox.cluster.columns.rows
        names = [name for name in _offered(record) or known if name in known]
        return self._place(sandbox, request, names, (), top)

    def _place(
        self,
        sandbox: Sandbox,
        request: PodRequest,
        names: list[str],
        refusals: tuple[RefusalAnswer, ...],
        top: int,
    ) -> DryRunPod:
        try:
            profile = sandbox.planner.profile_of(sandbox.request(request))
        except DemandError as error:
            return _hopeless(request.namespace, request.name, str(error))
        decision = sandbox.place(request, names, now=self._steady())
        verdict = digest(decision, sandbox.cluster, profile, NameTable(), at=self._clock())
        record = Record(request, verdict.at, verdict.at, 1, "planned", verdict=verdict)
        shown = show_decision(verdict, top)
        shown = msgspec.structs.replace(
            shown,
            considered=shown.considered + sum(refusal.count for refusal in refusals),
            refusals=(*refusals, *shown.refusals),
        )
        best = decision.chosen
        waiting = None
        if best is None:
            waiting = Waits(sandbox.cluster, self._inventory, self._store).show(request)
        return DryRunPod(
            namespace=request.namespace,
            name=request.name,
            outcome="refused" if best is None else "placed",
            node=None if best is None else best.node,
            reason=_why(decision, refusals),
            scores=tuple(show_scores(record, top)),
            strategies=tuple(show_strategies(record, top)),
            set=show_set(verdict.options[0]) if verdict.options else None,
            decision=shown,
            waiting=waiting,
        )


def _offered(record: Record) -> list[str]:
    verdict = record.verdict
    return [] if verdict is None else pick(verdict.table.names, unpack(verdict.nodes).tolist())


def _hopeless(namespace: str, name: str, reason: str) -> DryRunPod:
    return DryRunPod(namespace, name, "refused", None, reason, (), (), None, None, None)


def _why(decision: Decision, refusals: tuple[RefusalAnswer, ...]) -> str:
    if decision.chosen is not None:
        return ""
    counts = Counter({refusal.reason: refusal.count for refusal in refusals})
    counts.update({refusal.reason: len(refusal.places) for refusal in decision.refusals})
    whole = len(decision.candidates) + sum(refusal.count for refusal in refusals)
    told = (f"{count} of {whole}: {reason}" for reason, count in counts.most_common())
    return "; ".join(told) or "there are no nodes"
