"""Which of two kube-schedulers leads, over the embedded API server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from embedded.apiserver import ApiServer
from embedded.kube_scheduler.election import Election, Terms
from runtime.kube import KubeClient, connect
from tests.waiting import wait_until

LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/s"
QUICK = Terms(lease=60, renew=1.0, retry=0.01)


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked = 0

    def __call__(self) -> float:
        """Return the time, and count who asks."""
        self.asked += 1
        return self.now


@pytest.fixture
def server() -> Iterator[ApiServer]:
    """Lend an API server."""
    server = ApiServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def client(server: ApiServer, tmp_path: Path) -> Iterator[KubeClient]:
    """Lend a client of it."""
    client = connect(str(server.write_kubeconfig(tmp_path / "kubeconfig")))
    yield client
    client.close()


def lease(client: KubeClient) -> dict[str, Any]:
    """Read the Lease's spec."""
    return dict(msgspec.json.decode(client.get(LEASE))["spec"])


def candidate(client: KubeClient, name: str, clock: Clock) -> Election:
    """Make a candidate."""
    return Election(client, "s", name, terms=QUICK, clock=clock)


def test_the_first_one_leads_and_the_other_waits(client: KubeClient) -> None:
    """A Lease that is renewed is nobody else's, however often he tries."""
    clock, stopping = Clock(), threading.Event()
    assert candidate(client, "a", clock).win(stopping)
    other = candidate(client, "b", clock)
    thread = threading.Thread(target=other.win, args=(stopping,), daemon=True)
    thread.start()
    assert candidate(client, "a", clock).win(stopping)
    stopping.set()
    thread.join()
    assert lease(client)["holderIdentity"] == "a"
    assert not other.win(stopping)


def test_a_lease_that_nobody_renews_changes_hands(client: KubeClient) -> None:
    """It counts from when it was last seen to change, by the observer's own clock."""
    clock, stopping = Clock(), threading.Event()
    assert candidate(client, "a", clock).win(stopping)
    won = threading.Event()
    other = candidate(client, "b", clock)

    def run() -> None:
        if other.win(stopping):
            won.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    wait_until(lambda: clock.asked > 2, what="the other to have seen the lease")
    clock.now = 59.0
    assert not won.is_set()
    clock.now = 61.0
    wait_until(won.is_set, what="the other to lead")
    thread.join()
    assert lease(client)["leaseTransitions"] == 1


def test_a_lease_that_was_given_up_is_free_at_once(client: KubeClient) -> None:
    """Who ends in order need not be waited for; who does not hold it gives nothing up."""
    clock, stopping = Clock(), threading.Event()
    leader, other = candidate(client, "a", clock), candidate(client, "b", clock)
    assert leader.win(stopping)
    other.resign()
    assert lease(client)["holderIdentity"] == "a"
    leader.resign()
    assert other.win(stopping)
    assert lease(client)["holderIdentity"] == "b"


def test_a_leader_that_cannot_renew_stops_leading(server: ApiServer, client: KubeClient) -> None:
    """Before its Lease is over for others: two never lead."""
    clock, stopping = Clock(), threading.Event()
    leader = candidate(client, "a", clock)
    assert leader.win(stopping)
    keeping = threading.Thread(target=leader.keep, args=(stopping,), daemon=True)
    keeping.start()
    server.go_away()
    clock.now = 2.0
    keeping.join(10)
    assert not keeping.is_alive()


def test_a_leader_renews_until_it_is_told_to_stop(client: KubeClient) -> None:
    """Each renewal is a new version of the Lease by the same holder."""
    clock, stopping = Clock(), threading.Event()
    leader = candidate(client, "a", clock)
    assert leader.win(stopping)
    first = lease(client)
    keeping = threading.Thread(target=leader.keep, args=(stopping,), daemon=True)
    keeping.start()
    wait_until(lambda: lease(client)["renewTime"] != first["renewTime"], what="a renewal")
    stopping.set()
    keeping.join(10)
    assert lease(client)["acquireTime"] == first["acquireTime"]
    assert lease(client)["leaseTransitions"] == 0
