"""The body of a dry-run, JSON or YAML -> what is asked. Every mistake names its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, TypeVar, cast

import msgspec
import yaml

from runtime.objects import Pod, PodSpec
from scheduler.explain.errors import BadRequestError

MOST_BYTES: Final = 1 << 20
"""The API server takes no object above 1.5 MiB either."""

MOST_PODS: Final = 256
"""Pods of one dry-run: each costs as much as a decision."""

DEEPEST: Final = 100
"""Levels of a body; a pod has some twelve."""

_T = TypeVar("_T")

_LOADER: Final[type[yaml.SafeLoader]] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's where it is there: ten times as fast."""


class Requirement(msgspec.Struct, frozen=True):
    """A demand on a label, or on the name, of a node."""

    key: str
    operator: str
    values: tuple[str, ...] | None = None


class NodeTerm(msgspec.Struct, frozen=True, rename="camel"):
    """Demands that must all be met."""

    match_expressions: tuple[Requirement, ...] | None = None
    match_fields: tuple[Requirement, ...] | None = None


class NodeSelector(msgspec.Struct, frozen=True, rename="camel"):
    """Terms of which one must be met."""

    node_selector_terms: tuple[NodeTerm, ...] = ()


class NodeAffinity(msgspec.Struct, frozen=True):
    """What the node must be like."""

    required: NodeSelector | None = msgspec.field(
        name="requiredDuringSchedulingIgnoredDuringExecution", default=None
    )


class Affinity(msgspec.Struct, frozen=True, rename="camel"):
    """The part of a pod's affinity that is looked at."""

    node_affinity: NodeAffinity | None = None


class AskedSpec(PodSpec, frozen=True, rename="camel"):
    """A pod's spec with its affinity."""

    affinity: Affinity | None = None


class AskedPod(Pod, frozen=True, rename="camel"):
    """A pod that is asked about."""

    spec: AskedSpec = AskedSpec()


class Cordon(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """GPUs of a node, by UUID or position, that are not to be given out."""

    node: str
    gpus: tuple[str | int, ...]


class Changes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What if: nodes gone with all that runs there, GPUs not given out, pods gone.

    `remove` names bound pods with GPUs as ``namespace/name``. `profile` is taken for all the pods
    instead of their own; `weights` are taken instead of that profile's.
    """

    drain: tuple[str, ...] = ()
    cordon: tuple[Cordon, ...] = ()
    remove: tuple[str, ...] = ()
    profile: str | None = None
    weights: dict[str, Annotated[float, msgspec.Meta(ge=0)]] = {}


class Reference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A pod that was decided on, as ``namespace/name``: it is decided anew, as if not there."""

    pod: str


class Question(msgspec.Struct, frozen=True):
    """What a dry-run is to find out: where these pods would go, one after the other."""

    pods: tuple[AskedPod | Reference, ...]
    changes: Changes = Changes()


class _Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pods: list[Any]
    changes: Changes = Changes()


def read_question(body: bytes) -> Question:
    """Read a Pod, a List of Pods, several documents of them, or ``{pods: [...], changes: ...}``.

    Raises BadRequestError.
    """
    if len(body) > MOST_BYTES:
        raise BadRequestError("body", f"{len(body)} bytes, at most {MOST_BYTES} are read")
    documents = [one for one in _parse(body) if one is not None]
    if not documents:
        raise BadRequestError("body", "is empty; want a Pod as YAML or JSON")
    if len(documents) == 1 and isinstance(documents[0], dict) and "pods" in documents[0]:
        envelope = _convert(documents[0], _Envelope, "body")
        question = Question(tuple(_pods(envelope.pods, "pods")), envelope.changes)
    else:
        question = Question(tuple(_pods(documents, "body")))
    if not 1 <= len(question.pods) <= MOST_PODS:
        raise BadRequestError("pods", f"{len(question.pods)} pods, want 1 to {MOST_PODS}")
    return question


def _parse(body: bytes) -> list[Any]:
    try:
        if body.lstrip()[:1] in {b"{", b"["}:
            return [msgspec.json.decode(body)]
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        pass  # YAML in flow style begins so too, and its errors have a line
    try:
        text = body.decode()
        _check_shape(text)
        return list(yaml.load_all(text, _LOADER))
    except BadRequestError:
        raise
    except UnicodeDecodeError as error:
        raise BadRequestError("body", f"is not UTF-8 at byte {error.start}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark is not None else "body"
        raise BadRequestError(where, str(error.problem or error.context)) from None
    except yaml.YAMLError as error:
        raise BadRequestError("body", " ".join(str(error).split())) from None
    except (ValueError, RecursionError) as error:
        # PyYAML makes dates, numbers and sets by itself, and some do not exist.
        said = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise BadRequestError("body", said) from None


def _check_shape(text: str) -> None:
    """Refuse what would not end well; events come one by one, whatever the text is like.

    An alias can stand for a tree that grows with every level, and libyaml makes trees by
    recursion in C, where too deep is the end of the process.
    """
    depth = 0
    for event in yaml.parse(text, _LOADER):
        if isinstance(event, yaml.AliasEvent):
            raise BadRequestError("body", "YAML aliases are not read")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise BadRequestError("body", f"nested more than {DEEPEST} deep")


def _pods(values: Iterable[Any], place: str) -> Iterable[AskedPod | Reference]:
    for number, value in enumerate(values):
        here = f"{place}[{number}]"
        if not isinstance(value, dict):
            raise BadRequestError(here, f"{_kind(value)}, want a Pod")
        fields = cast("Mapping[str, Any]", value)
        kind = fields.get("kind", "Pod")
        if "pod" in fields and "spec" not in fields:
            yield _convert(fields, Reference, here)
        elif not isinstance(kind, str):
            raise BadRequestError(f"{here}.kind", f"{_kind(kind)}, want Pod or List")
        elif kind in {"List", "PodList"}:
            items = fields.get("items") or []
            if not isinstance(items, list):
                raise BadRequestError(f"{here}.items", f"{_kind(items)}, want an array")
            yield from _pods(items, f"{here}.items")
        elif kind != "Pod":
            raise BadRequestError(f"{here}.kind", f"{kind[:40]!r}, want Pod or List")
        elif not isinstance(fields.get("spec"), dict):
            raise BadRequestError(f"{here}.spec", "is missing, want a Pod")
        else:
            yield _convert(fields, AskedPod, here)


def _convert(value: object, kind: type[_T], place: str) -> _T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        raise BadRequestError(place + path.rstrip("`"), problem) from None
    except RecursionError:
        raise BadRequestError(place, "nested too deeply") from None


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names = {dict: "object", list: "array", str: "text", bool: "true or false"}
    return names.get(type(value), type(value).__name__)
