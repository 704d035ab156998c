"""The transport, both flavours, against real sockets.

What a server can do wrong beyond the embedded one's manners is played by a socket that answers
with fixed bytes.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from embedded.apiserver import ApiServer
from embedded.apiserver.resources import NODES, PODS, Target
from runtime.errors import (
    AccessError,
    ApiError,
    ConflictError,
    GoneError,
    NotFoundError,
    UnreachableError,
)
from runtime.kube import AioKubeClient, KubeClient, connect, connect_aio
from tests.runtime.fixed_answer import FixedAnswer
from tests.waiting import wait_until

PODS_PATH = "/api/v1/namespaces/default/pods"


def a_pod(name: str) -> dict[str, Any]:
    """Make the least that is a pod."""
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c"}]}}


def add_pods(server: ApiServer, count: int) -> None:
    """Put pods into the store."""
    for number in range(count):
        server.api.create(Target(PODS, "default"), a_pod(f"p{number:03}"))


@pytest.fixture
async def aio(kubeconfig: str) -> AsyncIterator[AioKubeClient]:
    """Connect a client for the test's event loop."""
    client = await connect_aio(kubeconfig)
    yield client
    await client.close()


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[str]:
    """Run a server that opens a watch and then says nothing."""
    fixed = FixedAnswer(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        hang=True,
    )
    yield fixed.kubeconfig(tmp_path / "silent")
    fixed.close()


@pytest.fixture
def cut(tmp_path: Path) -> Iterator[str]:
    """Run a server that ends in the middle of a watch's second line."""
    body = b'{"type":"ADDED"}\n{"type":"MODIF'
    fixed = FixedAnswer(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(body), body),
        hang=False,
    )
    yield fixed.kubeconfig(tmp_path / "cut")
    fixed.close()


def test_create_get_patch_put_and_delete(client: KubeClient) -> None:
    """The five verbs carry JSON there and back."""
    made = json.loads(client.post("/api/v1/nodes", {"metadata": {"name": "n1"}}))
    assert made["metadata"]["uid"]
    patched = client.patch("/api/v1/nodes/n1", b'{"metadata":{"annotations":{"a/b":"c"}}}')
    assert json.loads(patched)["metadata"]["annotations"] == {"a/b": "c"}
    assert json.loads(client.put("/api/v1/nodes/n1", json.loads(patched))) == json.loads(patched)
    client.delete("/api/v1/nodes/n1")
    with pytest.raises(NotFoundError):
        client.get("/api/v1/nodes/n1")


async def test_create_get_patch_put_and_delete_in_a_loop(aio: AioKubeClient) -> None:
    """The five verbs carry JSON there and back, in an event loop too."""
    made = json.loads(await aio.post("/api/v1/nodes", {"metadata": {"name": "n1"}}))
    assert made["metadata"]["uid"]
    patched = await aio.patch("/api/v1/nodes/n1", {"metadata": {"annotations": {"a/b": "c"}}})
    assert json.loads(patched)["metadata"]["annotations"] == {"a/b": "c"}
    assert json.loads(await aio.put("/api/v1/nodes/n1", patched)) == json.loads(patched)
    await aio.delete("/api/v1/nodes/n1")
    with pytest.raises(NotFoundError):
        await aio.get("/api/v1/nodes/n1")


def test_a_null_in_a_patch_deletes_the_key(client: KubeClient) -> None:
    """Patches are merge patches."""
    client.post("/api/v1/nodes", {"metadata": {"name": "n1", "annotations": {"a": "1", "b": "2"}}})
    after = json.loads(client.patch("/api/v1/nodes/n1", {"metadata": {"annotations": {"a": None}}}))
    assert after["metadata"]["annotations"] == {"b": "2"}


def test_an_error_carries_the_status_object(client: KubeClient) -> None:
    """Status, reason and message of a refusal are attributes of the error."""
    client.post("/api/v1/nodes", {"metadata": {"name": "n1"}})
    with pytest.raises(ConflictError) as caught:
        client.post("/api/v1/nodes", {"metadata": {"name": "n1"}})
    assert (caught.value.status, caught.value.reason) == (409, "AlreadyExists")
    assert caught.value.message == 'nodes "n1" already exists'


async def test_an_error_carries_the_status_object_in_a_loop(aio: AioKubeClient) -> None:
    """The event loop's client maps errors the same way."""
    with pytest.raises(ApiError, match="422 Invalid"):
        await aio.post(PODS_PATH, {"metadata": {"name": "NO"}})


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, NotFoundError), (409, ConflictError), (410, GoneError), (403, ApiError)],
)
def test_each_status_has_its_class(status: int, error: type[ApiError], tmp_path: Path) -> None:
    """A body that is no Status object leaves the phrase only: pages of proxies stay out of logs."""
    answer = b"HTTP/1.1 %d Nope\r\nContent-Length: 6\r\n\r\nsecret" % status
    fixed = FixedAnswer(answer, hang=False)
    client = connect(fixed.kubeconfig(tmp_path / "kubeconfig"))
    with pytest.raises(error) as caught:
        client.get("/x")
    assert (caught.value.status, caught.value.message) == (status, "")
    assert "secret" not in str(caught.value)
    client.close()
    fixed.close()


async def test_a_phrase_that_is_no_unicode_can_be_said(tmp_path: Path) -> None:
    """Proxies say in Latin-1 what is wrong; what becomes of it goes into JSON: answers and logs."""
    fixed = FixedAnswer(b"HTTP/1.1 503 Verf\xfcgbar\r\nContent-Length: 0\r\n\r\n", hang=False)
    aio = await connect_aio(fixed.kubeconfig(tmp_path / "kubeconfig"))
    with pytest.raises(ApiError) as caught:
        await aio.get("/x")
    assert str(caught.value) == "503 Verf?gbar"
    await aio.close()
    fixed.close()


def test_a_long_message_is_cut(tmp_path: Path) -> None:
    """At most 300 characters of a server's text are kept."""
    body = json.dumps({"kind": "Status", "reason": "Forbidden", "message": "x" * 5000}).encode()
    answer = b"HTTP/1.1 403 No\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    fixed = FixedAnswer(answer, hang=False)
    client = connect(fixed.kubeconfig(tmp_path / "kubeconfig"))
    with pytest.raises(ApiError) as caught:
        client.get("/x")
    assert len(str(caught.value)) < 330
    client.close()
    fixed.close()


def test_pages_follow_the_continue_token(server: ApiServer, client: KubeClient) -> None:
    """A list of 25 in pages of 10 is three pages and all 25, in order."""
    add_pods(server, 25)
    pages = [json.loads(p) for p in client.list_pages(PODS_PATH, {"resourceVersion": "0"}, 10)]
    assert [len(page["items"]) for page in pages] == [10, 10, 5]
    names = [item["metadata"]["name"] for page in pages for item in page["items"]]
    assert names == [f"p{number:03}" for number in range(25)]


async def test_pages_follow_the_continue_token_in_a_loop(
    server: ApiServer, aio: AioKubeClient
) -> None:
    """Pages come in an event loop too."""
    add_pods(server, 5)
    pages = [json.loads(page) async for page in aio.list_pages(PODS_PATH, limit=2)]
    assert [len(page["items"]) for page in pages] == [2, 2, 1]


def test_a_token_that_expired_between_pages_is_gone(server: ApiServer, client: KubeClient) -> None:
    """Compaction in the middle of a paged list is a GoneError, to be answered by a new list."""
    add_pods(server, 5)
    pages = client.list_pages(PODS_PATH, limit=2)
    next(pages)
    server.compact()
    with pytest.raises(GoneError):
        next(pages)


def test_a_watch_yields_whole_lines(server: ApiServer, client: KubeClient) -> None:
    """Each line of a watch is one event."""
    with client.watch_lines("/api/v1/nodes", {"resourceVersion": "0"}) as stream:
        server.api.create(Target(NODES), {"metadata": {"name": "n1"}})
        assert json.loads(next(iter(stream)))["object"]["metadata"]["name"] == "n1"


async def test_a_watch_yields_whole_lines_in_a_loop(server: ApiServer, aio: AioKubeClient) -> None:
    """Each line of a watch is one event, in an event loop too."""
    lines = aio.watch_lines("/api/v1/nodes", {"resourceVersion": "0"})
    server.api.create(Target(NODES), {"metadata": {"name": "n1"}})
    assert json.loads(await anext(lines))["object"]["metadata"]["name"] == "n1"
    await lines.aclose()


def test_a_watch_can_be_closed_from_another_thread(server: ApiServer, client: KubeClient) -> None:
    """Closing wakes the thread that waits for a line; its loop ends without an error."""
    stream = client.watch_lines("/api/v1/nodes", {"resourceVersion": "0"})
    seen: list[bytes] = []
    reader = threading.Thread(target=lambda: seen.extend(stream))
    reader.start()
    stream.close()
    wait_until(lambda: not reader.is_alive(), what="the reader's end")
    assert seen == []


def test_a_silent_watch_fails_after_the_inactivity_timeout(silent: str) -> None:
    """A dead peer that keeps its connection open is found out."""
    client = connect(silent)
    with pytest.raises(UnreachableError, match="ReadTimeout"):
        list(client.watch_lines("/api/v1/nodes", inactivity_timeout=0.1))
    client.close()


async def test_a_silent_watch_fails_after_the_inactivity_timeout_in_a_loop(silent: str) -> None:
    """A dead peer that keeps its connection open is found out in an event loop too."""
    client = await connect_aio(silent)
    with pytest.raises(UnreachableError, match="Timeout"):
        await anext(client.watch_lines("/api/v1/nodes", inactivity_timeout=0.1))
    await client.close()


def test_a_line_cut_in_the_middle_is_not_delivered(cut: str) -> None:
    """Of a stream that is cut in a line only the whole lines count, then the cut is an error."""
    client = connect(cut)
    stream = iter(client.watch_lines("/api/v1/nodes"))
    assert next(stream) == b'{"type":"ADDED"}'
    with pytest.raises(UnreachableError, match="watch"):
        next(stream)
    client.close()


async def test_a_line_cut_in_the_middle_is_not_delivered_in_a_loop(cut: str) -> None:
    """The event loop's client keeps back the cut line too."""
    client = await connect_aio(cut)
    lines = client.watch_lines("/api/v1/nodes")
    assert await anext(lines) == b'{"type":"ADDED"}'
    with pytest.raises(UnreachableError, match="watch"):
        await anext(lines)
    await client.close()


def test_a_server_that_is_away_is_unreachable(server: ApiServer, client: KubeClient) -> None:
    """A refused connection is an UnreachableError that names the request."""
    server.go_away()
    with pytest.raises(UnreachableError, match="GET /version"):
        client.get("/version")
    server.come_back()
    assert b"gitVersion" in client.get("/version")


async def test_a_server_that_is_away_is_unreachable_in_a_loop(
    server: ApiServer, aio: AioKubeClient
) -> None:
    """A refused connection is an UnreachableError in an event loop too."""
    server.go_away()
    with pytest.raises(UnreachableError, match="GET /version"):
        await aio.get("/version")
    server.come_back()
    assert b"gitVersion" in await aio.get("/version")


@pytest.mark.parametrize(
    "text", ["", "{", "current-context: nowhere\n", "clusters: 5\ncurrent-context: a\n"]
)
def test_a_broken_kubeconfig_is_named(text: str, tmp_path: Path) -> None:
    """Whatever is wrong with a kubeconfig is one AccessError that names the file."""
    path = tmp_path / "broken"
    path.write_text(text)
    with pytest.raises(AccessError, match=str(path)):
        connect(str(path))


async def test_a_missing_kubeconfig_is_named(tmp_path: Path) -> None:
    """A file that is not there is one AccessError that names it."""
    with pytest.raises(AccessError, match="missing"):
        connect(str(tmp_path / "missing"))
    with pytest.raises(AccessError, match="missing"):
        await connect_aio(str(tmp_path / "missing"))


def test_connecting_for_threads_loads_no_models_and_no_event_loop_client(kubeconfig: str) -> None:
    """The DaemonSet's process imports neither CoreV1Api nor aiohttp: 80 MiB that it never uses."""
    import subprocess

    program = (
        "import sys; from runtime.kube import connect; connect(sys.argv[1]);"
        "print([m for m in sys.modules if m in ('aiohttp', 'kubernetes.client.api.core_v1_api',"
        " 'kubernetes.client.models.v1_pod')])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, kubeconfig], check=True, capture_output=True, text=True
    )
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope",
    ],
    ids=["nothing", "ssh", "short", "bad chunk", "bad gzip"],
)
async def test_an_answer_that_is_no_http_is_unreachable(answer: bytes, tmp_path: Path) -> None:
    """Whatever comes from the other side, both flavours raise this package's errors only."""
    fixed = FixedAnswer(answer, hang=False)
    kubeconfig = fixed.kubeconfig(tmp_path / "kubeconfig")
    client, aio = connect(kubeconfig), await connect_aio(kubeconfig)
    for verb in (client.get, lambda path: list(client.watch_lines(path))):
        with pytest.raises(UnreachableError):
            verb("/api/v1/nodes")
    with pytest.raises(UnreachableError):
        await aio.get("/api/v1/nodes")
    with pytest.raises(UnreachableError):
        await anext(aio.watch_lines("/api/v1/nodes"))
    client.close()
    await aio.close()
    fixed.close()


async def test_a_request_is_sent_once(tmp_path: Path) -> None:
    """Threads try nothing again by themselves; the loop's client no request that writes."""
    fixed = FixedAnswer(b"", hang=False)
    kubeconfig = fixed.kubeconfig(tmp_path / "kubeconfig")
    client, aio = connect(kubeconfig), await connect_aio(kubeconfig)
    with pytest.raises(UnreachableError):
        client.get(PODS_PATH)
    assert fixed.connections == 1
    with pytest.raises(UnreachableError):
        await aio.post(PODS_PATH, a_pod("p"))
    assert fixed.connections == 2
    client.close()
    await aio.close()
    fixed.close()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


async def test_a_netrc_file_is_nobodys_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking for one at each request costs more than the request."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    fixed = FixedAnswer(OK, hang=False)
    client = await connect_aio(fixed.kubeconfig(tmp_path / "config"))
    await client.get("/api/v1/nodes/n1")
    assert b"authorization" not in fixed.asked[0].lower()
    await client.close()
    fixed.close()


async def test_a_proxy_in_the_environment_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by kubectl; the proxy is asked for the API server's whole URL."""
    proxy, away = FixedAnswer(OK, hang=False), FixedAnswer(OK, hang=False)
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
    client = await connect_aio(away.kubeconfig(tmp_path / "config"))
    await client.get("/api/v1/nodes/n1")
    assert proxy.asked[0].startswith(f"GET http://127.0.0.1:{away.port}/api/v1/nodes/n1 ".encode())
    assert not away.asked
    await client.close()
    proxy.close()
    away.close()
