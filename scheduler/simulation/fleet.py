"""The nodes of a list as the live engine sees a cluster: columns, filters, scores, sets.

What stands here in place of the watches: a pod that is placed is at once among the facts of its
node, one that departs is gone from them. Everything else is the engine's.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from scheduler.engine.cluster import ClusterState
from scheduler.engine.columns import NodeFacts, Room
from scheduler.engine.request import Amounts
from scheduler.engine.workload import Expected
from scheduler.simulation.boards import Boards
from scheduler.simulation.cluster import MOST_PODS
from topology.gpuset import GpuSet, full_set, positions
from topology.tables import DEFAULT_MIX, Mix
from traces.openb import Node, TaskClass


class Fleet:
    """A cluster's state for a list of nodes, empty at first."""

    def __init__(
        self,
        nodes: Sequence[Node],
        boards: Boards,
        expected: Expected,
        mix: Mix = DEFAULT_MIX,
    ) -> None:
        self.state = ClusterState(mix, workload=expected)
        self.names = [node.name for node in nodes]
        self._facts: list[NodeFacts] = []
        self._rooms: list[Room] = []
        for node in nodes:
            self._facts.append(
                NodeFacts(
                    hardware=boards.hardware(node),
                    uuids=tuple(f"{node.name}/{at}" for at in range(node.gpus)),
                    healthy=full_set(node.gpus),
                    used=(0,) * node.gpus,
                )
            )
            self._rooms.append(Room(Amounts(node.cpu_milli, node.memory_mib, MOST_PODS)))
        for row in range(len(nodes)):
            self._put(row)

    def take(self, row: int, kind: TaskClass, members: GpuSet) -> None:
        """Put a task on these GPUs of a node."""
        self._change(row, kind, members, 1)

    def give_back(self, row: int, kind: TaskClass, members: GpuSet) -> None:
        """Take a task off its GPUs."""
        self._change(row, kind, members, -1)

    def _change(self, row: int, kind: TaskClass, members: GpuSet, sign: int) -> None:
        facts, room = self._facts[row], self._rooms[row]
        used = list(facts.used)
        for position in positions(members):
            used[position] += sign * kind.share_milli
        asks = Amounts(sign * kind.cpu_milli, sign * kind.memory_mib, sign)
        self._facts[row] = msgspec.structs.replace(facts, used=tuple(used))
        self._rooms[row] = Room(room.capacity, room.used + asks)
        self._put(row)

    def _put(self, row: int) -> None:
        name = self.names[row]
        self.state.put(name, self._facts[row])
        self.state.put_room(name, self._rooms[row])
