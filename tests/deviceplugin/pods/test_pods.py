"""What is known of the node's pods, and how the rest is asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import msgspec
import pytest

from deviceplugin.admission.readback import ReadBack
from deviceplugin.errors import PodResourcesError
from deviceplugin.podresources.v1 import api_pb2
from deviceplugin.pods.cache import PodCache, PodGetter, own_node_query
from deviceplugin.pods.holdings import Holdings, PodHoldings, read_answer
from runtime.errors import KubeError, NotFoundError, UnreachableError
from runtime.objects import Pod
from tests.deviceplugin.nodes import RESOURCE, by_key, holdings, names, pod
from tests.waiting import wait_until


class Counter:
    """Counts calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> None:
        """Count one."""
        self.calls += 1


def test_the_cache_follows_the_watch() -> None:
    """List, change and deletion are seen by readers at once, as unchanging mappings."""
    changes = Counter()
    cache = PodCache(on_change=changes)
    cache.listed((pod("a", 1), pod("b", 1)))
    before = cache.read()
    cache.changed(pod("c", 1))
    cache.deleted(pod("a", 1))
    assert before.keys() == {"d/a", "d/b"}
    assert cache.read().keys() == {"d/b", "d/c"}
    assert changes.calls == 3


@pytest.mark.parametrize(
    ("after", "ends"),
    [
        pytest.param((pod("a", 1),), 0, id="unchanged"),
        pytest.param((pod("a", 1), pod("b", 1)), 0, id="one-more"),
        pytest.param((pod("a", 1, phase="Running"),), 0, id="runs"),
        pytest.param((pod("a", 1, phase="Succeeded"),), 1, id="ended"),
        pytest.param((), 1, id="gone"),
        pytest.param((pod("a", 1, uid="other"),), 1, id="replaced-by-a-namesake"),
    ],
)
def test_the_end_of_a_pod_is_told(after: tuple[Pod, ...], ends: int) -> None:
    """A relist that shows a pod ended, gone or replaced tells of it, others do not."""
    ended = Counter()
    cache = PodCache(on_end=ended)
    cache.listed((pod("a", 1),))
    cache.listed(after)
    assert ends == ended.calls


def test_a_deletion_does_not_hit_a_namesake() -> None:
    """A late deletion of the former pod leaves its successor."""
    cache = PodCache()
    cache.changed(pod("a", 1, uid="new"))
    cache.deleted(pod("a", 1, uid="old"))
    assert cache.read()["d/a"].metadata.uid == "new"


def test_the_watch_asks_for_the_own_node_only() -> None:
    """The field selector names the node."""
    assert own_node_query("n1") == {"fieldSelector": "spec.nodeName=n1"}


class Server:
    """An API server that answers one pod, fails, or hangs until it is let go."""

    def __init__(self, answer: bytes | KubeError) -> None:
        self.answer = answer
        self.paths: list[str] = []
        self.go = threading.Event()
        self.go.set()

    def get(self, path: str, query: Mapping[str, str] | None = None, *, timeout: float) -> bytes:
        """Answer."""
        self.paths.append(path)
        self.go.wait(10)
        if isinstance(self.answer, KubeError):
            raise self.answer
        return self.answer


def test_a_pod_is_got_by_its_name() -> None:
    """The path names namespace and pod, quoted."""
    server = Server(msgspec.json.encode(pod("a", 1)))
    got = PodGetter(server).get("d/a", 1)
    assert got is not None
    assert got.key == "d/a"
    assert server.paths == ["/api/v1/namespaces/d/pods/a"]


def test_a_pod_that_does_not_exist_is_none() -> None:
    """404 is an answer, not an error."""
    assert PodGetter(Server(NotFoundError(404, "NotFound", ""))).get("d/a", 1) is None


def test_errors_and_garbage_are_kube_errors() -> None:
    """Whatever else goes wrong is one kind of error that names the pod or the cause."""
    with pytest.raises(UnreachableError, match="away"):
        PodGetter(Server(UnreachableError("away"))).get("d/a", 1)
    with pytest.raises(KubeError, match="d/a does not read"):
        PodGetter(Server(b"[]")).get("d/a", 1)


def test_a_server_that_hangs_costs_the_deadline_once() -> None:
    """After the deadline the call is left alone, and no other is tried until it comes back."""
    server = Server(msgspec.json.encode(pod("a", 1)))
    server.go.clear()
    getter = PodGetter(server)
    with pytest.raises(UnreachableError, match="no answer within"):
        getter.get("d/a", 0.01)
    with pytest.raises(UnreachableError, match="has not come back"):
        getter.get("d/a", 0.01)
    server.go.set()

    def answers() -> bool:
        try:
            return getter.get("d/a", 5) is not None
        except UnreachableError:
            return False

    wait_until(answers, what="the getter to be free again")


def test_kubelets_answer_is_reduced_to_the_resource() -> None:
    """Entries of one resource are joined, those of others dropped, empty containers kept."""
    answer = [
        api_pb2.PodResources(
            name="a",
            namespace="d",
            containers=[
                api_pb2.ContainerResources(
                    name="c0",
                    devices=[
                        api_pb2.ContainerDevices(resource_name=RESOURCE, device_ids=["g1"]),
                        api_pb2.ContainerDevices(resource_name="x.dev/nic", device_ids=["n0"]),
                        api_pb2.ContainerDevices(resource_name=RESOURCE, device_ids=["g0"]),
                    ],
                ),
                api_pb2.ContainerResources(name="c1"),
            ],
        )
    ]
    read = read_answer(answer).of(RESOURCE)
    assert read == Holdings({"d/a": PodHoldings("d/a", {"c0": ("g1", "g0"), "c1": ()})})
    assert read.holders() == {"g0": "d/a", "g1": "d/a"}


class Reader:
    """Answers readings from a script; the last answer is repeated."""

    def __init__(self, *answers: Holdings | PodResourcesError | None) -> None:
        self.answers = list(answers)
        self.calls = 0

    def __call__(self) -> Holdings | None:
        """Give the next answer."""
        self.calls += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, PodResourcesError):
            raise answer
        return answer


def _run(read: Reader, period: float, pods: dict[str, Pod] | None = None) -> ReadBack:
    reading = ReadBack(read, lambda: pods or {}, period=period, quiet=0.01)
    threading.Thread(target=reading.run).start()
    return reading


def test_reading_starts_at_once_and_on_demand() -> None:
    """The first reading waits for nobody, the next for a wake-up or the period."""
    read = Reader(Holdings())
    reading = _run(read, period=600)
    wait_until(lambda: read.calls == 1, what="the first reading")
    reading.wake()
    wait_until(lambda: read.calls == 2, what="the second")
    reading.stop()


def test_a_reading_that_is_put_off_is_made_soon() -> None:
    """While admissions are under way, and while kubelet is silent, it is tried again."""
    read = Reader(None, None, PodResourcesError("silent"), Holdings())
    reading = _run(read, period=600)
    wait_until(lambda: read.calls == 4, what="the reading that succeeds")
    reading.stop()


def test_a_pod_that_ended_and_still_holds_is_looked_at_again() -> None:
    """Kubelet frees lazily: readings follow until it has."""
    read = Reader(holdings(a={"c0": names(0)}), holdings(a={"c0": names(0)}), Holdings())
    reading = _run(read, period=600, pods=by_key(pod("a", 1, phase="Succeeded")))
    wait_until(lambda: read.calls == 3, what="the GPU to be free")
    reading.stop()


def test_a_pod_that_vanishes_under_the_reading_is_no_fault() -> None:
    """The watch may drop a pod between two looks; the thread survives that."""
    answers = [by_key(pod("a", 1)), by_key(), by_key()]
    read = Reader(holdings(a={"c0": names(0)}))
    reading = ReadBack(
        read, lambda: answers.pop(0) if len(answers) > 1 else answers[0], period=0.01, quiet=0.01
    )
    thread = threading.Thread(target=reading.run)
    thread.start()
    wait_until(lambda: read.calls > 2, what="readings that go on")
    reading.stop()
    thread.join(10)


class LateStop(threading.Event):
    """A door bell that is rung by a stop just before it is muted."""

    def __init__(self, stop: Callable[[], None]) -> None:
        super().__init__()
        self._stop = stop

    def clear(self) -> None:
        """Let the stop come first."""
        self._stop()
        super().clear()


def test_a_stop_is_never_slept_over() -> None:
    """A stop that comes between the look at it and the muting of the bell ends the run."""
    reading = ReadBack(Reader(Holdings()), dict, period=600, quiet=0.01)
    reading._wake = LateStop(reading.stop)
    thread = threading.Thread(target=reading.run, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
