"""The scheduling queue: who is tried when, and that waiting costs nothing."""

from __future__ import annotations

from embedded.kube_scheduler.queue import LEFTOVER_SECONDS, Backoff, Place, SchedulingQueue


def queue_of(*uids: str) -> SchedulingQueue:
    """Make a queue with a back-off of 1, 2, 4, ... 10 s."""
    queue = SchedulingQueue(Backoff(1.0, 10.0))
    for uid in uids:
        queue.add(uid, priority=0)
    return queue


def test_pods_come_out_in_the_order_they_came() -> None:
    """Equal priorities are served first come, first served."""
    queue = queue_of("a", "b", "c")
    assert [queue.pop(0.0) for _ in range(4)] == ["a", "b", "c", None]


def test_a_higher_priority_goes_first() -> None:
    """Priority beats age."""
    queue = queue_of("old")
    queue.add("urgent", priority=100)
    assert queue.pop(0.0) == "urgent"


def test_a_refused_pod_waits_for_an_event() -> None:
    """Time alone does not bring a refused pod back before the leftover flush."""
    queue = queue_of("a")
    queue.pop(0.0)
    queue.refuse("a", 0.0)
    assert queue.pop(200.0) is None
    assert queue.idle
    assert queue.pop(LEFTOVER_SECONDS) == "a"


def test_an_event_brings_it_back_only_after_its_back_off() -> None:
    """Waking does not shorten the rest, which doubles with every refusal."""
    queue = queue_of("a")
    now = 0.0
    for rest in (1.0, 2.0, 4.0, 8.0, 10.0, 10.0):
        assert queue.pop(now) == "a"
        queue.refuse("a", now)
        queue.wake(now)
        assert queue.pop(now + rest - 0.01) is None
        assert queue.next_time() == now + rest
        now += rest


def test_events_in_a_row_cost_one_try_each_back_off() -> None:
    """A thousand events a second make no hot loop."""
    queue = queue_of("a")
    tries = 0
    for step in range(10_000):
        now = step / 1000
        queue.wake(now)
        if queue.pop(now):
            tries += 1
            queue.refuse("a", now)
    assert tries == 4  # at 0, 1, 3 and 7 s


def test_an_event_during_the_try_counts() -> None:
    """What changed while a pod was tried may have been missed: it backs off and is tried again."""
    queue = queue_of("a")
    queue.pop(0.0)
    queue.wake(0.0)
    queue.refuse("a", 0.0)
    assert queue.count(Place.BACKOFF) == 1
    assert queue.pop(1.0) == "a"


def test_an_error_backs_off_without_an_event() -> None:
    """A failed try is repeated by time alone."""
    queue = queue_of("a")
    queue.pop(0.0)
    queue.fail("a", 0.0)
    assert not queue.idle
    assert queue.pop(0.9) is None
    assert queue.pop(1.0) == "a"


def test_a_retried_pod_queues_behind_the_others() -> None:
    """Coming back from a rest means the end of the line."""
    queue = queue_of("a")
    queue.pop(0.0)
    queue.fail("a", 0.0)
    queue.add("b", priority=0)
    assert [queue.pop(2.0), queue.pop(2.0)] == ["b", "a"]


def test_a_forgotten_pod_never_comes_out() -> None:
    """Bound and deleted pods leave no trace in any place."""
    queue = queue_of("a", "b")
    queue.forget("a")
    assert queue.pop(0.0) == "b"
    queue.fail("b", 0.0)
    queue.forget("b")
    assert queue.pop(100.0) is None
    assert len(queue) == 0
    assert queue.next_time() is None


def test_adding_again_keeps_the_place() -> None:
    """An update of a waiting pod is no reason to try it again."""
    queue = queue_of("a")
    queue.pop(0.0)
    queue.refuse("a", 0.0)
    queue.add("a", priority=0)
    assert queue.pop(50.0) is None
