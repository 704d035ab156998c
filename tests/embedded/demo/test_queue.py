"""The scheduling queue: who is tried when, and that waiting costs nothing."""

from __future__ import annotations

import pytest

from embedded.kube_scheduler.events import HELPS, Event, Plugin
from embedded.kube_scheduler.queue import LEFTOVER_SECONDS, Backoff, Place, SchedulingQueue

FIT = (Plugin.NODE_RESOURCES_FIT,)


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
    queue.refuse("a", 0.0, FIT)
    assert queue.pop(200.0) is None
    assert queue.idle
    assert queue.pop(LEFTOVER_SECONDS) == "a"


def test_an_event_brings_it_back_at_once_when_nobody_else_is_to_be_tried() -> None:
    """An idle scheduler does not sit back-offs out, however often it has tried."""
    queue = queue_of("a")
    for turn in range(5):
        assert queue.pop(float(turn) / 100) == "a"
        queue.refuse("a", float(turn) / 100, FIT)
        assert queue.pop(float(turn) / 100) is None
        queue.wake(Event.POD_GONE)


def test_a_busy_scheduler_lets_it_rest() -> None:
    """While others are active a pod that was tried before stands behind them."""
    queue = queue_of("a")
    queue.pop(0.0)
    queue.refuse("a", 0.0, FIT)
    queue.wake(Event.POD_GONE)
    assert queue.count(Place.BACKOFF) == 1
    queue.add("b", priority=0)
    assert [queue.pop(0.5), queue.pop(0.5)] == ["b", "a"]


@pytest.mark.parametrize("plugin", list(Plugin))
@pytest.mark.parametrize("event", list(Event))
def test_only_events_that_may_help_wake_a_pod(plugin: Plugin, event: Event) -> None:
    """Who was refused for lack of room is not tried when a label changes."""
    queue = queue_of("a")
    queue.pop(0.0)
    queue.refuse("a", 0.0, (plugin,))
    queue.wake(event)
    assert (queue.pop(0.0) == "a") is (event in HELPS[plugin])


def test_one_who_refused_is_enough_to_be_helped() -> None:
    """A pod that was refused by room here and by taints there is woken by either."""
    queue = queue_of("a")
    queue.pop(0.0)
    queue.refuse("a", 0.0, (Plugin.NODE_RESOURCES_FIT, Plugin.TAINT_TOLERATION))
    queue.wake(Event.NODE_TAINTS)
    assert queue.pop(0.0) == "a"


def test_everything_may_help_who_was_refused_by_an_extender() -> None:
    """It cannot say what would, so even its own pod's update counts: a text that changes spins."""
    assert HELPS[Plugin.EXTENDER] == set(Event)


def test_an_event_may_concern_one_pod_only() -> None:
    """Its own update wakes the pod itself."""
    queue = queue_of("a", "b")
    for _ in range(2):
        uid = queue.pop(0.0)
        assert uid is not None
        queue.refuse(uid, 0.0, (Plugin.EXTENDER,))
    queue.wake(Event.ITSELF, "b")
    queue.wake(Event.ITSELF, "unheard of")
    assert [queue.pop(0.0), queue.pop(0.0)] == ["b", None]


def test_an_event_during_the_try_counts() -> None:
    """What changed while a pod was tried may have been missed: it is tried again."""
    queue = queue_of("a")
    queue.pop(0.0)
    queue.wake(Event.POD_GONE)
    queue.refuse("a", 0.0, FIT)
    assert queue.pop(0.0) == "a"
    queue.wake(Event.NODE_LABELS)
    queue.refuse("a", 0.0, FIT)
    assert queue.pop(0.0) is None


def test_an_error_backs_off_without_an_event() -> None:
    """A failed try is repeated by time alone, whatever happens, twice as late each time."""
    queue = queue_of("a")
    now = 0.0
    for rest in (1.0, 2.0, 4.0, 8.0, 10.0, 10.0):
        assert queue.pop(now) == "a"
        queue.fail("a", now)
        assert not queue.idle
        queue.wake(Event.POD_GONE)
        assert queue.pop(now + rest - 0.01) is None
        assert queue.next_time() == now + rest
        now += rest


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
    """An update of a waiting pod is no reason to try it again, unless an extender refused it."""
    queue = queue_of("a")
    queue.pop(0.0)
    queue.refuse("a", 0.0, FIT)
    queue.add("a", priority=0)
    queue.wake(Event.ITSELF, "a")
    assert queue.pop(50.0) is None
