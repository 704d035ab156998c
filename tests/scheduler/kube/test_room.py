"""What pods take of a node's CPU and memory, whether they have GPUs or not."""

from __future__ import annotations

from tests.scheduler.kube.watched import Watched, cpu_pod
from tests.scheduler.nodes import mesh


def room(watched: Watched) -> tuple[int, int, int]:
    """Return the free CPU, memory and places of the node n."""
    columns = watched.cluster.columns
    row = columns.rows["n"]
    return int(columns.cpu[row]), int(columns.memory[row]), int(columns.pods[row])


def test_every_pod_counts_by_its_cpu_and_memory() -> None:
    """Pods without GPUs too, from when they are bound until they are gone or finished."""
    watched = Watched()
    watched.node("n", mesh(4), amounts={"cpu": "8", "memory": "16Gi", "pods": "110"})
    assert room(watched) == (8000, 16384, 110)
    watched.pod(**cpu_pod("a", "1500m"))
    watched.pod(**cpu_pod("b", "2"))
    watched.pod(**cpu_pod("pending", "4", node=""))
    assert room(watched) == (4500, 14336, 108)
    watched.pod(**cpu_pod("a", "1500m", phase="Succeeded"))
    watched.gone("b")
    assert room(watched) == (8000, 16384, 110)


def test_requests_may_change_while_a_pod_runs() -> None:
    """A resized pod counts with what it asks for now."""
    watched = Watched()
    watched.node("n", mesh(4), amounts={"cpu": "8", "memory": "16Gi", "pods": "110"})
    watched.pod(**cpu_pod("a", "1"))
    watched.pod(**cpu_pod("a", "3"))
    assert room(watched)[0] == 5000
    watched.gone("a")
    assert room(watched)[0] == 8000


def test_pods_that_come_before_their_node_are_counted() -> None:
    """Watches are not in step: the node finds what its pods take, also when it comes back."""
    watched = Watched()
    watched.pod(**cpu_pod("a", "1"))
    for _ in range(2):
        watched.node("n", mesh(4), amounts={"cpu": "8", "memory": "16Gi", "pods": "110"})
        assert room(watched) == (7000, 15360, 109)
        watched.inventory.drop_node("n")
    watched.gone("a")
    watched.node("n", mesh(4), amounts={"cpu": "8", "memory": "16Gi", "pods": "110"})
    assert room(watched) == (8000, 16384, 110)


def test_a_list_without_a_pod_ends_what_it_took() -> None:
    """A deletion that was missed is found by the next list."""
    watched = Watched()
    watched.node("n", mesh(4), amounts={"cpu": "8", "memory": "16Gi", "pods": "110"})
    watched.pod(**cpu_pod("a", "1"))
    watched.inventory.pods.listed(())
    assert room(watched) == (8000, 16384, 110)


def test_a_pod_that_asks_for_all_the_cpu_there_can_be_is_counted_like_any() -> None:
    """The API server takes it, bound to a node by who made it; it must not end the daemon."""
    watched = Watched()
    watched.node("n", mesh(4), amounts={"cpu": "8", "memory": "16Gi", "pods": "110"})
    most = "9223372036854775807"
    main = {"name": "main", "resources": {"requests": {"cpu": most, "memory": most}}}
    for number in range(100):
        watched.pod(f"p{number}", uid=f"u{number}", node="n", containers=[main] * 20)
    assert room(watched)[0] < 0
    for number in range(100):
        watched.gone(f"u{number}")
    assert room(watched) == (8000, 16384, 110)


def test_a_node_that_says_it_has_more_than_any_machine_is_taken() -> None:
    """Simulated nodes say so; the number must not end the daemon."""
    watched = Watched()
    watched.node("n", mesh(4), amounts={"cpu": "1e18", "memory": "1e18", "pods": "1e18"})
    assert room(watched)[0] > 0


def test_cpu_alone_leaves_refusals_standing() -> None:
    """The version, by which refusals are remembered, grows with what filters look at only."""
    watched = Watched()
    watched.node("n", mesh(4), amounts={"cpu": "8", "memory": "16Gi", "pods": "110"})
    before = watched.cluster.version, watched.cluster.columns.change
    watched.pod(**cpu_pod("a", "1"))
    assert watched.cluster.version == before[0]
    assert watched.cluster.columns.change > before[1]


def test_the_workload_is_learned_from_bound_pods() -> None:
    """Each pod with GPUs counts once, however often it is shown."""
    watched = Watched()
    watched.node("n", mesh(4))
    for _ in range(3):
        watched.pod("p", 2, uid="u", node="n")
    assert watched.cluster.outlook.expected.seen == 1
