"""Why a pod is where it is, told by the bundle in pods: by whichever replica, to who may hear it.

kube-scheduler, kubelet and API server are real, and so are tokens, rights and Events.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.browser import PATIENCE, browse, faults_of, page_of, visit
from tests.e2e.pods.asking import (
    AUDIENCE,
    PORT,
    Answer,
    ask,
    direct,
    forwarded,
    pass_the_lead_on,
    replicas,
    run_cli,
)
from tests.e2e.pods.bundle import NAMESPACE, SCHEDULER, Bundle, workload
from tests.e2e.pods.conftest import install
from tests.waiting import wait_until
from topology.wire import MIN_LINK_KEY

OVERLAY: Final = Path(__file__).parent / "explained"
OURS: Final = "app.kubernetes.io/managed-by=gputopo-extender"


@pytest.fixture(scope="module")
def installed() -> Iterator[Bundle]:
    """Return the bundle that writes Events too."""
    with install(OVERLAY) as bundle:
        yield bundle


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start Chromium."""
    with browse() as started:
        yield started


def test_either_replica_tells_what_kube_scheduler_did(bundle: Bundle) -> None:
    """Asked by port-forward, without a token: the winner of the record is where the pod runs."""
    name = bundle.run(workload("train", main=4))
    node = bundle.node_of(name)
    leader, standby = replicas(bundle)
    for pod, by in ((leader, None), (standby, leader["metadata"]["name"])):
        with forwarded(bundle, pod) as url:
            record = _bound(url, name)
            assert (record.status, record.by) == (200, by)
            assert record.told["binding"]["node"] == node
            chosen = {one for uuids in bundle.chosen(name).values() for one in uuids}
            told = record.told["binding"]["containers"]["main"]
            assert set(told) == chosen
            scores = ask(f"{url}/v1/pods/default/{name}/scores?top=10")
            assert (scores.told[0]["Host"], scores.by) == (node, by)


def test_in_the_pods_network_the_clusters_tokens_open(bundle: Bundle) -> None:
    """A token for us, of somebody with the right; none for the API server, none of anybody else."""
    kubectl = bundle.cluster.plane.kubectl
    make = ("create", "token", "default", "-n", "default")
    ours = kubectl(*make, "--audience", AUDIENCE).strip()
    both = kubectl(*make, "--audience", AUDIENCE, "--audience", "https://elsewhere").strip()
    urls = [f"{direct(pod)}/v1/cluster" for pod in replicas(bundle)]
    for url in urls:
        assert ask(url).status == 401
        refused = ask(url, token=kubectl(*make).strip())
        assert refused.status == 401
        assert f"the token is not for {AUDIENCE}" in refused.told["error"]
        forbidden = ask(url, token=ours)
        assert forbidden.status == 403
        assert "system:serviceaccount:default:default may not get" in forbidden.told["error"]
    binding = ("clusterrolebinding", "e2e-reader")
    role = "--clusterrole=gputopo-explain-reader"
    kubectl("create", *binding, role, "--serviceaccount=default:default")
    try:
        for url in urls:
            wait_until(lambda url=url: ask(url, token=ours).status == 200, 30, "the right to count")
            assert ask(url, token=both).told["nodes"] == 2
    finally:
        kubectl("delete", *binding)


def test_a_token_that_somebody_made_up_is_refused(bundle: Bundle) -> None:
    """Though it says the right things of itself: the signature is another's."""
    kubectl = bundle.cluster.plane.kubectl
    token = kubectl("create", "token", "gputopo-scheduler", "-n", NAMESPACE, "--audience", AUDIENCE)
    head, claims, _ = token.strip().split(".")
    other = kubectl("create", "token", "default", "--audience", AUDIENCE).strip().split(".")[2]
    for pod in replicas(bundle):
        refused = ask(f"{direct(pod)}/v1/cluster", token=f"{head}.{claims}.{other}")
        assert refused.status == 401
        assert "the API server does not take the token for ours" in refused.told["error"]


def test_an_api_server_that_hangs_is_told_and_not_waited_for(bundle: Bundle) -> None:
    """Who was let in a moment ago is answered; of others it cannot be said, and that is said."""
    plane = bundle.cluster.plane
    make = ("create", "token", "gputopo-scheduler", "-n", NAMESPACE, "--audience", AUDIENCE)
    known, new = (plane.kubectl(*make).strip() for _ in range(2))
    url = f"{direct(replicas(bundle)[0])}/v1/cluster"
    assert ask(url, token=known).status == 200
    plane.api_server.pause()
    try:
        assert ask(url, token=known).status == 200
        answer = ask(url, token=new)
    finally:
        plane.api_server.resume()
    assert answer.status == 503
    assert "the API server cannot be asked about the token" in answer.told["error"]
    wait_until(lambda: ask(url, token=new).status == 200, 30, "the API server to answer again")
    bundle.await_ready()


def test_the_api_servers_proxy_lets_nobody_in(bundle: Bundle) -> None:
    """It comes from no loopback, and takes the caller's token away, be he an administrator."""
    for pod in replicas(bundle):
        where = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod['metadata']['name']}:{PORT}/proxy"
        with pytest.raises(HTTPError) as caught:
            bundle.cluster.plane.ask(f"{where}/v1/cluster")
        with caught.value as error:
            assert error.code == 401
            assert "a bearer token is needed" in json.load(error)["error"]


def test_the_token_of_the_replicas_is_good_for_nothing_else(bundle: Bundle) -> None:
    """What goes over the pods' network in the clear does not open the API server."""
    code = "print(open('/var/run/secrets/gputopo-explain/token').read())"
    token = bundle.run_in(replicas(bundle)[1], "extender", code)
    assert ask(f"{direct(replicas(bundle)[0])}/v1/cluster", token=token).status == 200
    plane = bundle.cluster.plane
    done = plane.try_kubectl("get", "pods", kubeconfig=plane.write_kubeconfig("replica", token))
    assert done.returncode != 0
    assert "Unauthorized" in done.stderr or "must be logged in" in done.stderr


def test_the_command_line_finds_the_server_by_the_kubeconfig(bundle: Bundle) -> None:
    """explain, cluster, nodes and pending; by kubectl alone."""
    name = bundle.run(workload("train", main=4))
    linked = workload("linked", main=2)
    linked["metadata"]["annotations"] = {MIN_LINK_KEY: "NV36"}
    bundle.apply(linked)
    kubeconfig = bundle.cluster.plane.kubeconfig()

    def say(*words: str) -> str:
        done = run_cli(*words, kubeconfig=kubeconfig)
        assert done.returncode == 0, done.stderr
        return done.stdout

    wait_until(lambda: f"bound to {bundle.node_of(name)}" in say("explain", name), 30, "the record")
    assert "default/train: bound, 1 try" in say("explain", f"default/{name}")
    assert "2 nodes, 16 GPUs" in say("cluster")
    assert {one["node"] for one in json.loads(say("nodes", "--json"))} == {"n1", "n2"}
    bundle.apply(workload("large", main=16))
    for other in ("linked", "large"):
        wait_until(lambda other=other: f"default/{other}" in say("pending"), 30, f"{other} to wait")
    assert "no set of the node's free GPUs meets the pod's demands" in say("explain", "linked")
    unasked = run_cli("explain", "large", kubeconfig=kubeconfig)
    assert "kube-scheduler: 0/2 nodes are available" in unasked.stderr
    done = run_cli("explain", "default/nobody", kubeconfig=kubeconfig)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no decision about it is known" in done.stderr


def test_the_command_line_that_meets_the_standby_tells_the_same(bundle: Bundle) -> None:
    """As somebody may who has no right to read the Lease: then it is the first pod by name."""
    kubeconfig = _viewer(bundle)
    if _first(bundle) == bundle.leading_pod()["metadata"]["name"]:
        pass_the_lead_on(bundle)
    assert _first(bundle) == replicas(bundle)[1]["metadata"]["name"]
    name = bundle.run(workload("train", main=2))

    def told(*words: str) -> Any:
        done = run_cli(*words, "--json", kubeconfig=kubeconfig)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    wait_until(lambda: told("explain", name)["outcome"] == "bound", 30, "the record")
    assert told("explain", name)["binding"]["node"] == bundle.node_of(name)
    assert told("cluster")["nodes"] == 2
    assert told("pending") == []


def test_a_change_of_the_lead_gives_answers_or_says_why_not(bundle: Bundle) -> None:
    """Whoever asks meanwhile gets an answer or 503 with a pod's name, and soon answers again."""
    _, standby = replicas(bundle)
    answers: list[Answer] = []
    over = threading.Event()
    with forwarded(bundle, standby) as url:
        asking = threading.Thread(target=_ask_on, args=(f"{url}/v1/cluster", answers, over))
        asking.start()
        try:
            pass_the_lead_on(bundle)
        finally:
            over.set()
            asking.join()
        assert {answer.status for answer in answers} <= {200, 503}
        for answer in answers:
            if answer.status == 503:
                assert "gputopo-scheduler-" in answer.told["error"]
        name = bundle.run(workload("after", main=2))
        for pod in replicas(bundle):
            with forwarded(bundle, pod) as there:
                assert _bound(there, name).told["binding"]["node"] == bundle.node_of(name)


def test_events_tell_of_decisions_and_go_when_their_time_is_over(bundle: Bundle) -> None:
    """Also those that a process left behind which is gone: here all of them are."""
    kubectl = bundle.cluster.plane.kubectl
    name = bundle.run(workload("train", main=4))
    wait_until(lambda: _events(bundle, name), 20, "an Event about the pod")
    (event,) = _events(bundle, name)
    assert (event["reason"], event["type"]) == ("GpusPlaced", "Normal")
    assert event["message"].startswith(f"{bundle.node_of(name)}: GPU ")
    assert event["involvedObject"]["name"] == name
    kubectl("scale", "deployment/gputopo-scheduler", "--replicas=0", "-n", NAMESPACE)
    try:
        kubectl(
            *("wait", "--for=delete", "pod", "-l", SCHEDULER),
            *("-n", NAMESPACE, "--timeout=30s"),
        )
        assert _events(bundle, name) == [event]
    finally:
        kubectl("scale", "deployment/gputopo-scheduler", "--replicas=2", "-n", NAMESPACE)
    bundle.await_ready()
    wait_until(lambda: not _events(bundle, name), 90, "the Event to be deleted")


def test_every_page_of_a_standby_is_live(bundle: Bundle, browser: Browser) -> None:
    """In Chromium, by port-forward: the leader's pages, and what happens shows by itself."""
    name = bundle.run(workload("train", main=4))
    node = bundle.node_of(name)
    bundle.apply(workload("large", main=16))
    _, standby = replicas(bundle)
    with forwarded(bundle, standby) as url, page_of(browser) as page:
        wait_until(lambda: _bound(url, name).status == 200, 30, "the record")
        shown = {
            "/": "16",
            "/nodes": node,
            f"/nodes/{node}": f"default/{name}",
            "/pods": "default/large",
            "/pods?show=bound": f"default/{name}",
            "/pods?show=all": f"default/{name}",
            f"/pods/default/{name}": f"It runs on {node} with 4 GPUs",
            "/pods/default/large": "kube-scheduler",
        }
        for path, text in shown.items():
            visit(page, url + path)
            expect(page.locator("main")).to_contain_text(text)
            assert faults_of(page) == [], path
        visit(page, f"{url}/pods?show=bound")
        page.evaluate("window.same = true")
        late = bundle.run(workload("late", main=2))
        expect(page.get_by_role("link", name=f"default/{late}")).to_be_visible(timeout=PATIENCE)
        assert page.evaluate("window.same")
        visit(page, f"{url}/pods/default/{late}")
        with page.expect_response("**/v1/dry-run?top=10") as answered:
            page.get_by_role("slider").first.press("Home")
        assert answered.value.status == 200


def _bound(url: str, name: str) -> Answer:
    """Return a pod's record as soon as its Binding is known."""
    path = f"{url}/v1/pods/default/{name}"
    wait_until(lambda: ask(path).told.get("outcome") == "bound", 30, f"the record of {name}")
    return ask(path)


def _first(bundle: Bundle) -> str:
    return min(str(pod["metadata"]["name"]) for pod in bundle.daemons(SCHEDULER))


def _viewer(bundle: Bundle) -> Path:
    """Return a kubeconfig of somebody with no more than the rights that the docs name."""
    plane = bundle.cluster.plane
    for words in (
        ("serviceaccount", "viewer"),
        ("role", "viewer", "--verb=get,list", "--resource=pods"),
        ("role", "viewer-ports", "--verb=create", "--resource=pods/portforward"),
        ("rolebinding", "viewer", "--role=viewer", f"--serviceaccount={NAMESPACE}:viewer"),
        ("rolebinding", "ports", "--role=viewer-ports", f"--serviceaccount={NAMESPACE}:viewer"),
    ):
        plane.kubectl("create", *words, "-n", NAMESPACE)
    return plane.write_kubeconfig("viewer", plane.service_account(NAMESPACE, "viewer"))


def _events(bundle: Bundle, name: str) -> list[dict[str, Any]]:
    told = bundle.cluster.plane.kubectl("get", "events", "-l", OURS, "--output=json")
    items: list[dict[str, Any]] = json.loads(told)["items"]
    uid = bundle.pod(name)["metadata"]["uid"]
    return [one for one in items if one["involvedObject"]["uid"] == uid]


def _ask_on(url: str, answers: list[Answer], over: threading.Event) -> None:
    while not over.wait(0.2):
        answers.append(ask(url))
