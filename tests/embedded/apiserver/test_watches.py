"""Watches over real HTTP: from where, what, until when."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from embedded.apiserver import ApiServer
from embedded.apiserver.resources import NODES, PODS, Target
from runtime.errors import UnreachableError
from runtime.kube import KubeClient, WatchStream

PODS_HERE = Target(PODS, "default")
PATH = "/api/v1/namespaces/default/pods"


def told(stream: WatchStream, count: int) -> list[tuple[str, str]]:
    """Return the next events, bookmarks left out, as (type, name)."""
    return [
        (event["type"], event["object"]["metadata"]["name"])
        for event in itertools.islice(events(stream, bookmarks=False), count)
    ]


def events(stream: WatchStream, *, bookmarks: bool = True) -> Iterator[dict[str, Any]]:
    """Yield the events of a stream."""
    for line in stream:
        event = json.loads(line)
        if bookmarks or event["type"] != "BOOKMARK":
            yield event


def test_a_watch_from_a_version_brings_what_came_after(
    server: ApiServer, client: KubeClient, a_pod: Any
) -> None:
    """Older changes are not sent again, later ones come in order."""
    server.api.create(PODS_HERE, a_pod("old"))
    version = str(server.store.version)
    server.api.create(PODS_HERE, a_pod("new"))
    server.api.delete(Target(PODS, "default", "old"))
    with client.watch_lines(PATH, {"resourceVersion": version}) as stream:
        assert told(stream, 2) == [("ADDED", "new"), ("DELETED", "old")]


@pytest.mark.parametrize("version", ["", "0"])
def test_a_watch_without_a_version_brings_what_exists_first(
    server: ApiServer, client: KubeClient, a_pod: Any, version: str
) -> None:
    """What exists is ADDED, then changes follow."""
    server.api.create(PODS_HERE, a_pod("there"))
    with client.watch_lines(PATH, {"resourceVersion": version}) as stream:
        lines = iter(stream)
        assert json.loads(next(lines))["object"]["metadata"]["name"] == "there"
        server.api.create(PODS_HERE, a_pod("next"))
        assert json.loads(next(lines))["object"]["metadata"]["name"] == "next"


def test_a_pod_that_starts_to_match_is_added_and_one_that_ceases_deleted(
    server: ApiServer, client: KubeClient, a_pod: Any
) -> None:
    """A kubelet's watch of its node sees a pod from its binding on."""
    query = {
        "resourceVersion": str(server.store.version),
        "fieldSelector": "spec.nodeName=n1,status.phase!=Succeeded",
    }
    with client.watch_lines("/api/v1/pods", query) as stream:
        for name in ("p", "q"):
            server.api.create(PODS_HERE, a_pod(name))
        server.api.bind(Target(PODS, "default", "p"), {"target": {"name": "n1"}})
        server.api.bind(Target(PODS, "default", "q"), {"target": {"name": "n2"}})
        server.api.patch(Target(PODS, "default", "p"), {"metadata": {"labels": {"a": "b"}}})
        done = {"status": {"phase": "Succeeded"}}
        server.api.patch(Target(PODS, "default", "p", "status"), done)
        assert told(stream, 3) == [("ADDED", "p"), ("MODIFIED", "p"), ("DELETED", "p")]


def test_bookmarks_carry_the_newest_version(
    server: ApiServer, client: KubeClient, a_pod: Any
) -> None:
    """A quiet watch learns the version of writes to other collections."""
    query = {"resourceVersion": str(server.store.version), "allowWatchBookmarks": "true"}
    server.api.create(PODS_HERE, a_pod())
    newest = str(server.store.version)
    with client.watch_lines("/api/v1/nodes", query) as stream:
        mark = next(events(stream))
    assert mark["type"] == "BOOKMARK"
    assert mark["object"]["kind"] == "Node"
    assert mark["object"]["metadata"]["resourceVersion"] == newest


def test_no_bookmarks_unless_asked(server: ApiServer, client: KubeClient, a_pod: Any) -> None:
    """The first line of a watch that did not ask is the pod, after several bookmark periods."""
    query = {"resourceVersion": str(server.store.version), "timeoutSeconds": "1"}
    with client.watch_lines(PATH, query) as stream:
        assert list(events(stream)) == []


def test_a_watch_ends_after_its_timeout(client: KubeClient) -> None:
    """The server ends the stream in good order, after a last bookmark for who asked."""
    query = {"resourceVersion": "0", "timeoutSeconds": "1", "allowWatchBookmarks": "true"}
    with client.watch_lines("/api/v1/nodes", query) as stream:
        types = {event["type"] for event in events(stream)}
    assert types == {"BOOKMARK"}


def test_a_compacted_version_is_an_error_event(
    server: ApiServer, client: KubeClient, a_pod: Any
) -> None:
    """410 comes inside the stream, as the protocol has it, and ends it."""
    version = str(server.store.version)
    server.api.create(PODS_HERE, a_pod())
    server.compact()
    with client.watch_lines(PATH, {"resourceVersion": version}) as stream:
        [error] = list(events(stream))
    assert error["type"] == "ERROR"
    assert (error["object"]["code"], error["object"]["reason"]) == (410, "Expired")


def test_the_present_version_survives_a_compaction(
    server: ApiServer, client: KubeClient, a_pod: Any
) -> None:
    """A watch that is up to date goes on."""
    with client.watch_lines(PATH, {"resourceVersion": str(server.store.version)}) as stream:
        server.compact()
        server.api.create(PODS_HERE, a_pod())
        assert told(stream, 1) == [("ADDED", "p")]


def test_a_history_that_overflows_is_compacted(a_pod: Any) -> None:
    """A store keeps a bounded log; versions before it are 410."""
    server = ApiServer(history=10)
    server.api.create(Target(NODES), {"metadata": {"name": "n"}})
    first = server.store.version
    for number in range(30):
        server.api.patch(Target(NODES, "", "n"), {"metadata": {"labels": {"a": str(number)}}})
    assert len(server.store.since(NODES.key, server.store.version - 10)) == 10
    with pytest.raises(Exception, match="too old resource version"):
        server.store.since(NODES.key, first)


def test_many_watches_see_the_same_order(server: ApiServer, client: KubeClient, a_pod: Any) -> None:
    """Twenty watches of one collection get every change once, in one order."""
    query = {"resourceVersion": str(server.store.version)}
    streams = [client.watch_lines(PATH, query) for _ in range(20)]
    for number in range(30):
        server.api.create(PODS_HERE, a_pod(f"p{number}"))
    wanted = [("ADDED", f"p{number}") for number in range(30)]
    for stream in streams:
        assert told(stream, 30) == wanted
        stream.close()


def test_going_away_cuts_watches(server: ApiServer, client: KubeClient) -> None:
    """A watch that is open when the server goes is cut, not ended."""
    stream = client.watch_lines(PATH, {"resourceVersion": str(server.store.version)})
    server.go_away()
    with pytest.raises(UnreachableError):
        list(stream)
