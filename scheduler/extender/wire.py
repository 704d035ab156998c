"""The extender protocol's bodies. The Go structs carry no JSON tags: the names are Go's own.

With nodeCacheCapable kube-scheduler sends and wants `NodeNames`, else whole nodes in `Nodes`.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from runtime.objects import UNREADABLE, Node, Pod

BODY_SHOWN = 120
"""Characters of a problem that an answer repeats."""


class BadBodyError(ValueError):
    """A body that is not what the protocol says: which verb, and the place of what is wrong."""


class NodeItems(msgspec.Struct, frozen=True):
    """A NodeList whose items stay raw, so that an answer can repeat them as they came."""

    items: tuple[msgspec.Raw, ...] | None = None


class ExtenderArgs(msgspec.Struct, frozen=True, rename="pascal"):
    """What filter and prioritize are asked. `NodeNames` stays raw to be compared as bytes."""

    pod: Pod
    nodes: NodeItems | None = None
    node_names: msgspec.Raw = msgspec.Raw(b"null")


class FilterResult(msgspec.Struct, frozen=True, rename="pascal"):
    """What filter answers: one of `nodes` and `node_names`, as it was asked."""

    nodes: NodeItems | None = None
    node_names: list[str] | None = None
    failed_nodes: dict[str, str] = {}
    failed_and_unresolvable_nodes: dict[str, str] = {}
    error: str = ""


class HostPriority(msgspec.Struct, frozen=True, rename="pascal"):
    """One line of what prioritize answers; the score is 0 to 10."""

    host: str
    score: int


class BindArgs(msgspec.Struct, frozen=True):
    """What bind is asked."""

    pod_name: str = msgspec.field(name="PodName")
    pod_namespace: str = msgspec.field(name="PodNamespace")
    pod_uid: str = msgspec.field(name="PodUID")
    node: str = msgspec.field(name="Node")


class BindResult(msgspec.Struct, frozen=True, rename="pascal"):
    """What bind answers; no error means bound."""

    error: str = ""


class ErrorBody(msgspec.Struct, frozen=True, rename="pascal"):
    """What is answered where the protocol has no place for an error."""

    error: str


_T = TypeVar("_T")

_ARGS = msgspec.json.Decoder(ExtenderArgs)
_BIND = msgspec.json.Decoder(BindArgs)
_NAMES = msgspec.json.Decoder(list[str] | None)
_NODE = msgspec.json.Decoder(Node)


def decode_args(verb: str, body: bytes) -> ExtenderArgs:
    """Read a filter or prioritize body. Raises BadBodyError."""
    args = _decode(verb, body, _ARGS)
    if not args.pod.metadata.uid or not args.pod.metadata.name:
        raise BadBodyError(f"{verb} body: $.Pod.metadata: name and uid are needed")
    if args.nodes is None and bytes(args.node_names) == b"null":
        raise BadBodyError(f"{verb} body: $: neither Nodes nor NodeNames")
    return args


def decode_names(verb: str, raw: msgspec.Raw) -> list[str]:
    """Read the node names. Raises BadBodyError."""
    try:
        return _NAMES.decode(raw) or []
    except UNREADABLE as error:
        raise BadBodyError(f"{verb} body: $.NodeNames: {error}"[: BODY_SHOWN * 2]) from None


def decode_nodes(verb: str, nodes: NodeItems) -> list[Node]:
    """Read whole nodes. Raises BadBodyError with the place."""
    read = []
    for index, raw in enumerate(nodes.items or ()):
        try:
            node = _NODE.decode(raw)
        except UNREADABLE as error:
            raise BadBodyError(f"{verb} body: $.Nodes.items[{index}]: {error}") from None
        if not node.metadata.name:
            raise BadBodyError(f"{verb} body: $.Nodes.items[{index}].metadata.name: is needed")
        read.append(node)
    return read


def decode_bind(body: bytes) -> BindArgs:
    """Read a bind body. Raises BadBodyError."""
    args = _decode("bind", body, _BIND)
    for name, value in (
        ("PodName", args.pod_name),
        ("PodNamespace", args.pod_namespace),
        ("PodUID", args.pod_uid),
        ("Node", args.node),
    ):
        if not value:
            raise BadBodyError(f"bind body: $.{name}: is empty")
        if "/" in value or value.startswith("."):
            raise BadBodyError(f"bind body: $.{name}: {value[:BODY_SHOWN]!r} is no name")
    return args


def _decode(verb: str, body: bytes, decoder: msgspec.json.Decoder[_T]) -> _T:
    try:
        return decoder.decode(body)
    except UNREADABLE as error:
        raise BadBodyError(f"{verb} body: {error}"[: BODY_SHOWN * 2]) from None


encode = msgspec.json.Encoder().encode
