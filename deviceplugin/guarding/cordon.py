"""GPUs that an operator takes out of service, by an annotation of the Node.

A cordoned GPU gets no new pod; a pod that runs on it stays, and is not shown as sick. kubelet
knows only Healthy and Unhealthy, and shows the latter in the status of the pod that has the device.
So a cordoned GPU is advertised as Unhealthy only while no live pod has it or was promised it; the
scheduler reads the state and passes over it at once in either case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import structlog

from deviceplugin.admission.asking import assignment_of
from deviceplugin.pods.holdings import Holdings
from deviceplugin.resources.inventory import Board, Cordon
from runtime.objects import Node, Pod
from topology.errors import WireError
from topology.wire import CORDON_KEY

NODES_PATH: Final = "/api/v1/nodes"

_log = structlog.get_logger("deviceplugin.cordon")


def one_node_query(node_name: str) -> dict[str, str]:
    """Return the list query for a single node."""
    return {"fieldSelector": f"metadata.name={node_name}"}


def read_words(text: str | None) -> tuple[str, ...]:
    """Return the words of the annotation: GPUs by index, uuid or PCI address, or ``all``."""
    words = (text or "").replace(",", " ").split()
    return tuple(dict.fromkeys(words))


def live_devices(holdings: Holdings, pods: Mapping[str, Pod]) -> frozenset[str]:
    """Return the ids of all devices that live pods hold, and the GPUs promised to bound ones."""
    held = {
        device
        for key, one in holdings.pods.items()
        if key not in pods or not pods[key].finished
        for device in one.uuids()
    }
    for pod in pods.values():
        if pod.finished or pod.status.phase != "Pending":
            continue
        try:
            assignment = assignment_of(pod)
        except WireError:
            continue
        if assignment is not None:
            held |= assignment.uuids()
    return frozenset(held)


class CordonKeeper:
    """Keeps the board's cordon true: what the Node says, and who holds what.

    A reflector's sink for the own Node. `refresh` is called whenever the pods or their devices may
    have changed, by any thread; it does not block.
    """

    def __init__(
        self,
        board: Board,
        *,
        holdings: Callable[[], Holdings | None],
        pods: Callable[[], Mapping[str, Pod]],
    ) -> None:
        self._board = board
        self._holdings = holdings
        self._pods = pods
        self._words: tuple[str, ...] = ()

    def listed(self, objects: tuple[Node, ...]) -> None:
        """Take the Node, or that there is none."""
        annotations = objects[0].metadata.annotations if objects else None
        self._take((annotations or {}).get(CORDON_KEY))

    def changed(self, obj: Node) -> None:
        """Take the Node."""
        self._take((obj.metadata.annotations or {}).get(CORDON_KEY))

    def deleted(self, _: Node) -> None:
        """Take that the Node was deleted; another may come by the same name."""
        self._take(None)

    def refresh(self) -> None:
        """Look again at who holds what."""
        # Without a cordon nobody asks, and the board is not troubled with every pod.
        if self._words:
            self._tell()

    def _take(self, text: str | None) -> None:
        words = read_words(text)
        if words == self._words:
            return
        self._words = words
        _log.info("cordon has changed", gpus=words)
        self._tell()

    def _tell(self) -> None:
        holdings = self._holdings() or Holdings()
        self._board.cordon(Cordon(self._words, live_devices(holdings, self._pods())))
