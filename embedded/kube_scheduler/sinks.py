"""Where kube-scheduler's watches tell of pods and nodes: its board."""

from __future__ import annotations

from typing import Any

from embedded.kube_scheduler.board import Board
from runtime.objects import Node


class PodSink:
    """Pods to the board. A list replaces all, so what it lacks is gone."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def listed(self, objects: tuple[dict[str, Any], ...], /) -> None:
        """Take all pods there are."""
        there = {_uid(whole) for whole in objects}
        for uid in self._board.known_pods() - there:
            self._board.remove_pod(uid)
        for whole in objects:
            self._board.set_pod(whole)

    def changed(self, obj: dict[str, Any], /) -> None:
        """Take a new or changed pod."""
        self._board.set_pod(obj)

    def deleted(self, obj: dict[str, Any], /) -> None:
        """Take a pod's end."""
        self._board.remove_pod(_uid(obj))


class NodeSink:
    """Nodes to the board."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def listed(self, objects: tuple[Node, ...], /) -> None:
        """Take all nodes there are."""
        for name in self._board.known_nodes() - {node.metadata.name for node in objects}:
            self._board.remove_node(name)
        for node in objects:
            self._board.set_node(node)

    def changed(self, obj: Node, /) -> None:
        """Take a new or changed node."""
        self._board.set_node(obj)

    def deleted(self, obj: Node, /) -> None:
        """Take a node's end."""
        self._board.remove_node(obj.metadata.name)


def _uid(whole: dict[str, Any]) -> str:
    meta = whole.get("metadata")
    return str(meta.get("uid", "")) if isinstance(meta, dict) else ""
