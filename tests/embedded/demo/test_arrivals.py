"""When pods arrive."""

from __future__ import annotations

from embedded.arrivals import (
    FULL_SECONDS,
    LIST_SECONDS,
    CountedArrivals,
    ListedArrivals,
    Waiting,
)
from embedded.workload import PodPlan

PLANS = [PodPlan(f"p{number}", ()) for number in range(100)]
NOBODY = Waiting(0, 0, 0)


def test_a_count_arrives_once_each_and_evenly() -> None:
    """Every pod comes exactly once, in order, by the end of the time."""
    arrivals = CountedArrivals(PLANS, seconds=10.0)
    seen = arrivals.due(0.0, NOBODY)
    assert len(seen) == 1
    seen += arrivals.due(5.0, NOBODY)
    assert len(seen) == 51
    assert not arrivals.over(5.0, NOBODY)
    seen += arrivals.due(10.0, NOBODY) + arrivals.due(11.0, NOBODY)
    assert seen == PLANS
    assert arrivals.over(11.0, NOBODY)


def test_no_pods_are_over_at_once() -> None:
    """A count of zero has nothing to wait for."""
    arrivals = CountedArrivals([])
    assert arrivals.due(0.0, NOBODY) == []
    assert arrivals.over(0.0, NOBODY)


def test_a_list_arrives_as_room_is_made() -> None:
    """Never more wait than the window, nor more untried than keep the scheduler busy."""
    arrivals = ListedArrivals(PLANS, window=10)
    assert len(arrivals.due(0.0, NOBODY)) == 6
    assert arrivals.due(0.1, Waiting(6, 0, 0)) == []
    assert len(arrivals.due(0.2, Waiting(8, 8, 0))) == 2
    assert arrivals.due(0.3, Waiting(10, 10, 0)) == []
    assert arrivals.left == 92


def test_a_list_stops_when_the_cluster_has_been_full_for_a_while() -> None:
    """Ten seconds after every waiting pod was refused, if pods ended meanwhile."""
    arrivals = ListedArrivals(PLANS, window=4)
    arrivals.due(0.0, NOBODY)
    arrivals.due(1.0, Waiting(4, 3, 0))
    assert arrivals.full_since is None
    arrivals.due(2.0, Waiting(4, 4, 1))
    assert arrivals.full_since == 2.0
    end = 2.0 + FULL_SECONDS
    assert not arrivals.over(end - 0.1, Waiting(4, 4, 9))
    assert not arrivals.over(end, Waiting(4, 4, 1))
    assert arrivals.over(end, Waiting(4, 4, 2))


def test_a_list_ends_with_its_last_pod_or_its_time_but_not_before_the_faults() -> None:
    """Exhaustion and the longest time end it too; `least` holds all of them back."""
    arrivals = ListedArrivals(PLANS[:3], window=4, least=20.0)
    arrivals.due(0.0, NOBODY)
    assert not arrivals.over(19.0, NOBODY)
    assert arrivals.over(20.0, NOBODY)
    assert ListedArrivals(PLANS, window=4).over(LIST_SECONDS, NOBODY)
