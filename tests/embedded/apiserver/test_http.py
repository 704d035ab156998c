"""The edge: paths, codes, media types, and coming and going."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

import pytest

from embedded.apiserver import ApiServer
from embedded.apiserver.resources import NODES, PODS, Target
from runtime.errors import ApiError
from runtime.kube import KubeClient


def ask(
    server: ApiServer, method: str, path: str, body: bytes = b"", content: str = "application/json"
) -> tuple[int, dict[str, Any]]:
    """Ask over a new connection and return code and decoded body."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
    connection.request(method, path, body, {"Content-Type": content})
    answer = connection.getresponse()
    decoded = json.loads(answer.read())
    connection.close()
    return answer.status, decoded


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/api/v2/pods", 404),
        ("GET", "/api/v1/widgets", 404),
        ("GET", "/api/v1/pods/p", 404),
        ("GET", "/api/v1/namespaces/default/nodes", 404),
        ("GET", "/api/v1/namespaces/default/pods/p/exec", 404),
        ("GET", "/apis/apps/v1/deployments", 404),
        ("GET", "//", 404),
        ("GET", "/api/v1/namespaces/default/pods/p/binding", 405),
        ("DELETE", "/api/v1/nodes", 405),
        ("PUT", "/api/v1/nodes", 405),
        ("POST", "/api/v1/pods", 405),
        ("POST", "/api/v1/nodes/n", 405),
        ("TRACE", "/api/v1/nodes/n", 405),
        ("GET", "/api/v1/nodes?limit=many", 400),
        ("GET", "/api/v1/nodes?resourceVersion=-1", 400),
        ("GET", "/api/v1/nodes?resourceVersion=999999", 504),
        ("GET", "/api/v1/nodes?continue=x&resourceVersion=1", 400),
        ("GET", "/api/v1/nodes?continue=x", 410),
        ("GET", "/api/v1/nodes?watch=true&resourceVersion=x", 400),
    ],
)
def test_what_is_not_served_is_a_status_object(
    server: ApiServer, method: str, path: str, code: int
) -> None:
    """Every refusal is a metav1.Status with the HTTP code inside."""
    body = b"{}" if method in {"POST", "PUT"} else b""
    status, answer = ask(server, method, path, body)
    assert (status, answer["kind"], answer["status"], answer["code"]) == (
        code,
        "Status",
        "Failure",
        code,
    )


@pytest.mark.parametrize("body", [b"{", b"", b"[]", b"\x00\xff", b'{"metadata":5}'])
def test_a_garbage_body_is_400_and_the_server_lives(server: ApiServer, body: bytes) -> None:
    """Malformed JSON is a Status, and the next request is served."""
    status, answer = ask(server, "POST", "/api/v1/nodes", body)
    assert (status, answer["reason"]) == (400, "BadRequest")
    assert ask(server, "GET", "/version")[0] == 200


def test_garbage_instead_of_http_does_not_stop_the_server(server: ApiServer) -> None:
    """A port scanner is not the end."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as peer:
        peer.sendall(b"\x16\x03\x01 not http\r\n\r\n")
        peer.recv(1000)
    assert ask(server, "GET", "/readyz")[0] == 200


@pytest.mark.parametrize(
    "content", ["application/json-patch+json", "application/apply-patch+yaml", "application/json"]
)
def test_other_patch_types_are_415(server: ApiServer, content: str) -> None:
    """Merge and strategic merge patches are taken, nothing else."""
    server.api.create(Target(NODES), {"metadata": {"name": "n"}})
    path = "/api/v1/nodes/n"
    assert ask(server, "PATCH", path, b"{}", content)[0] == 415
    strategic = "application/strategic-merge-patch+json"
    assert ask(server, "PATCH", path, b'{"metadata":{"labels":{"a":"b"}}}', strategic)[0] == 200


def test_a_body_beyond_3_mib_is_413(server: ApiServer) -> None:
    """The real server's limit holds."""
    assert ask(server, "POST", "/api/v1/nodes", b" " * (3 * 1024 * 1024 + 1))[0] == 413


def test_a_dry_run_answers_and_keeps_nothing(server: ApiServer) -> None:
    """A dryRun=All over HTTP."""
    body = b'{"metadata":{"name":"n"}}'
    assert ask(server, "POST", "/api/v1/nodes?dryRun=All", body)[0] == 201
    assert server.store.get(NODES.key, "", "n") is None


def test_discovery_names_what_is_served(server: ApiServer) -> None:
    """Clients that look around find groups, versions and resources."""
    assert ask(server, "GET", "/api")[1]["versions"] == ["v1"]
    groups = {group["name"] for group in ask(server, "GET", "/apis")[1]["groups"]}
    assert groups == {"coordination.k8s.io", "events.k8s.io", "scheduling.k8s.io"}
    names = {r["name"] for r in ask(server, "GET", "/api/v1")[1]["resources"]}
    assert {"nodes", "nodes/status", "pods", "pods/binding", "events"} <= names
    assert ask(server, "GET", "/version")[1]["major"] == "1"


def test_deleting_a_pod_returns_it_and_deleting_a_node_a_status(
    server: ApiServer, a_pod: Any
) -> None:
    """As the real server answers."""
    server.api.create(Target(PODS, "default"), a_pod())
    server.api.create(Target(NODES), {"metadata": {"name": "n"}})
    assert ask(server, "DELETE", "/api/v1/namespaces/default/pods/p")[1]["kind"] == "Pod"
    answer = ask(server, "DELETE", "/api/v1/nodes/n")[1]
    assert (answer["kind"], answer["status"]) == ("Status", "Success")


def test_both_event_groups_and_leases_are_kept(client: KubeClient) -> None:
    """Events of either group and leases can be written and listed."""
    event = {"metadata": {"generateName": "e-"}, "reason": "Scheduled", "type": "Normal"}
    for path in (
        "/api/v1/namespaces/default/events",
        "/apis/events.k8s.io/v1/namespaces/default/events",
        "/apis/coordination.k8s.io/v1/namespaces/default/leases",
    ):
        client.post(path, event if "events" in path else {"metadata": {"name": "l"}})
        assert len(json.loads(client.get(path))["items"]) == 1


def test_coming_back_keeps_the_port_and_the_objects(server: ApiServer, client: KubeClient) -> None:
    """Going away twice and coming back twice are one each."""
    client.post("/api/v1/nodes", {"metadata": {"name": "n"}})
    url = server.url
    for _ in range(2):
        server.go_away()
        server.go_away()
        server.come_back()
        server.come_back()
    assert server.url == url
    assert json.loads(client.get("/api/v1/nodes/n"))["metadata"]["name"] == "n"


def test_while_away_nobody_else_gets_the_port(server: ApiServer) -> None:
    """The port is refused to clients and not given to other listeners."""
    server.go_away()
    port = int(server.url.rsplit(":", 1)[1])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))


def test_a_taken_port_is_an_error(server: ApiServer) -> None:
    """Starting on a port that is in use raises at once."""
    port = int(server.url.rsplit(":", 1)[1])
    with pytest.raises(OSError, match="in use"):
        ApiServer().start(port)


def test_stop_may_be_repeated(a_pod: Any) -> None:
    """A stopped server refuses, and stopping it again does nothing."""
    server = ApiServer()
    server.start()
    server.stop()
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        ask(server, "GET", "/version")


def test_a_conflict_over_http_is_409(client: KubeClient, server: ApiServer, a_pod: Any) -> None:
    """The second of two bindings is refused with the text of the real server."""
    server.api.create(Target(PODS, "default"), a_pod())
    path = "/api/v1/namespaces/default/pods/p/binding"
    assert b"Success" in client.post(path, {"target": {"name": "n1"}})
    with pytest.raises(ApiError, match='already assigned to node "n1"'):
        client.post(path, {"target": {"name": "n2"}})
