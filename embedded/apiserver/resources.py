"""The kinds that are served, as data, and how a URL path names them."""

from __future__ import annotations

import msgspec

from embedded.apiserver.errors import ApiRefusal

_META = ("metadata.name", "metadata.namespace")


class Resource(msgspec.Struct, frozen=True):
    """A kind: where it lives in the URL space and what may be done with it."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    subresources: tuple[str, ...] = ()
    fields: tuple[str, ...] = _META
    """Fields that a fieldSelector may name."""
    unconditional_update: bool = True
    """Whether a PUT without a resourceVersion is taken."""

    @property
    def api_version(self) -> str:
        """``v1`` or ``group/version``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def key(self) -> str:
        """The collection's name in the store."""
        return f"{self.group}/{self.plural}" if self.group else self.plural


NODES = Resource(
    "",
    "v1",
    "nodes",
    "Node",
    namespaced=False,
    subresources=("status",),
    fields=("metadata.name", "spec.unschedulable"),
)
PODS = Resource(
    "",
    "v1",
    "pods",
    "Pod",
    subresources=("status", "binding"),
    fields=(*_META, "spec.nodeName", "spec.schedulerName", "status.phase"),
)
NAMESPACES = Resource(
    "", "v1", "namespaces", "Namespace", namespaced=False, fields=("metadata.name",)
)
_EVENT_FIELDS = (*_META, "reason", "type")
EVENTS = Resource(
    "",
    "v1",
    "events",
    "Event",
    fields=(
        *_EVENT_FIELDS,
        "involvedObject.kind",
        "involvedObject.name",
        "involvedObject.namespace",
        "involvedObject.uid",
    ),
)
NEW_EVENTS = Resource(
    "events.k8s.io",
    "v1",
    "events",
    "Event",
    fields=(*_EVENT_FIELDS, "regarding.kind", "regarding.name", "regarding.uid"),
)
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease", unconditional_update=False)

PRIORITY_CLASSES = Resource(
    "scheduling.k8s.io",
    "v1",
    "priorityclasses",
    "PriorityClass",
    namespaced=False,
    fields=("metadata.name",),
)

RESOURCES = (NODES, PODS, NAMESPACES, EVENTS, NEW_EVENTS, LEASES, PRIORITY_CLASSES)

BINDINGS = "bindings"
"""The old way to bind: POST to the namespace's collection, the pod named by the Binding."""


class Target(msgspec.Struct, frozen=True):
    """What a path names; `name` empty for a collection, `namespace` empty for all of them."""

    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""


_BY_PLACE = {(r.group, r.version, r.plural): r for r in RESOURCES}
_MISSING = "the server could not find the requested resource"


def parse_path(path: str) -> Target:
    """Read a resource path. Raises ApiRefusal 404 for everything that is not served.

    >>> parse_path("/api/v1/namespaces/default/pods/a/binding").subresource
    'binding'
    """
    parts = path.strip("/").split("/")
    match parts:
        case ["api", version, *rest]:
            group = ""
        case ["apis", group, version, *rest]:
            pass
        case _:
            raise ApiRefusal(404, "NotFound", _MISSING)
    namespace = ""
    if len(rest) >= 3 and rest[0] == "namespaces":
        namespace, rest = rest[1], rest[2:]
    if not rest or len(rest) > 3 or not all(rest):
        raise ApiRefusal(404, "NotFound", _MISSING)
    plural, name, subresource = (*rest, "", "")[:3]
    if (group, plural) == ("", BINDINGS) and namespace and not name:
        return Target(PODS, namespace, "", BINDINGS)
    resource = _BY_PLACE.get((group, version, plural))
    if (
        resource is None
        or (subresource and subresource not in resource.subresources)
        or (bool(namespace) and not resource.namespaced)
        or (bool(name) and resource.namespaced and not namespace)
    ):
        raise ApiRefusal(404, "NotFound", _MISSING)
    return Target(resource, namespace, name, subresource)


def discovery(path: str) -> dict[str, object] | None:
    """Answer what is served, None when `path` is no discovery path."""
    groups = sorted({(r.group, r.version) for r in RESOURCES if r.group})
    match path.strip("/").split("/"):
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"]}
        case ["apis"]:
            listed = [_group(group, version) for group, version in groups]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
        case ["api", "v1"]:
            return _resource_list("", "v1")
        case ["apis", group, version] if (group, version) in groups:
            return _resource_list(group, version)
        case ["apis", group]:
            return next((_group(g, v) for g, v in groups if g == group), None)
    return None


def _group(group: str, version: str) -> dict[str, object]:
    served = {"groupVersion": f"{group}/{version}", "version": version}
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": group,
        "versions": [served],
        "preferredVersion": served,
    }


def _resource_list(group: str, version: str) -> dict[str, object]:
    verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
    listed: list[dict[str, object]] = []
    for resource in RESOURCES:
        if (resource.group, resource.version) != (group, version):
            continue
        head = {"singularName": "", "namespaced": resource.namespaced, "kind": resource.kind}
        listed.append({"name": resource.plural, **head, "verbs": verbs})
        for sub in resource.subresources:
            kind = "Binding" if sub == "binding" else resource.kind
            does = ["create"] if sub == "binding" else ["get", "patch", "update"]
            listed.append(
                {
                    "name": f"{resource.plural}/{sub}",
                    **head,
                    "kind": kind,
                    "verbs": does,
                }
            )
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": listed,
    }
