"""The rules of list and watch, step by step, with chance that is given and no socket."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import ApiError, GoneError, UnreachableError
from runtime.objects import Pod
from runtime.reflection import (
    FIRST_PAUSE,
    LAST_PAUSE,
    TRUST,
    ListStep,
    PauseStep,
    Reflection,
    WatchStep,
)

CUT = UnreachableError("cut")
GONE = GoneError(410, "Expired", "too old")


class Names:
    """A sink that remembers names."""

    def __init__(self) -> None:
        self.present: set[str] = set()
        self.lists = 0

    def listed(self, objects: tuple[Pod, ...]) -> None:
        """Replace all."""
        self.present = {pod.metadata.name for pod in objects}
        self.lists += 1

    def changed(self, obj: Pod) -> None:
        """Add one."""
        self.present.add(obj.metadata.name)

    def deleted(self, obj: Pod) -> None:
        """Drop one."""
        self.present.discard(obj.metadata.name)


def page(version: int, *names: str) -> bytes:
    """Write a whole list."""
    items = [{"metadata": {"name": name, "resourceVersion": "1"}} for name in names]
    return json.dumps({"metadata": {"resourceVersion": str(version)}, "items": items}).encode()


def event(type_: str, version: int, name: str = "p", **meta: Any) -> bytes:
    """Write a watch line."""
    obj = {"metadata": {"name": name, "resourceVersion": str(version), **meta}}
    return json.dumps({"type": type_, "object": obj}).encode()


class Told:
    """A reflection with its sink and what it reported."""

    def __init__(self, seed: int = 1, *, consistent: bool = False) -> None:
        self.sink = Names()
        self.reports: list[str] = []
        self.state = Reflection(
            Pod,
            self.sink,
            rng=random.Random(seed),
            report=self.reports.append,
            consistent=consistent,
        )

    def list(self, version: int, *names: str) -> None:
        """Go through the list step."""
        assert isinstance(self.state.step(), ListStep)
        self.state.page(page(version, *names))
        self.state.listed()

    def watch(self) -> WatchStep:
        """Go to the watch step, through the pause that may be owed."""
        step = self.state.step()
        if isinstance(step, PauseStep):
            step = self.state.step()
        assert isinstance(step, WatchStep)
        return step


@pytest.fixture
def told() -> Told:
    """Make a reflection that has listed one pod at version 7."""
    told = Told()
    told.list(7, "a")
    return told


NO_TEXT = b"a\xff"
DEEP = b'{"x":' * 5_000 + b"{}" + b"}" * 5_000


def test_the_first_step_lists_from_the_servers_cache() -> None:
    """The first list asks for version 0."""
    step = Told().state.step()
    assert step == ListStep({"resourceVersion": "0"})


def test_a_consistent_reflection_never_lists_from_a_cache() -> None:
    """Neither the first list nor the one after a lost position asks for version 0."""
    told = Told(consistent=True)
    assert told.state.step() == ListStep({})
    told.list(7, "a")
    told.watch()
    told.state.failed(GoneError(410, "Expired", ""))
    while not isinstance(step := told.state.step(), ListStep):
        pass
    assert step == ListStep({})


def test_the_watch_starts_from_the_lists_version(told: Told) -> None:
    """The watch asks for the list's version, bookmarks, and an end in five to ten minutes."""
    query = told.watch().query
    assert query["resourceVersion"] == "7"
    assert query["allowWatchBookmarks"] == "true"
    assert 300 <= int(query["timeoutSeconds"]) <= 600


def test_the_query_is_kept_in_both_steps() -> None:
    """A selector narrows the list and the watch."""
    state = Reflection(Pod, Names(), rng=random.Random(1), query={"fieldSelector": "x=y"})
    step = state.step()
    assert isinstance(step, ListStep)
    assert step.query["fieldSelector"] == "x=y"


def test_pages_are_delivered_together_and_only_when_complete() -> None:
    """A list that fails on its second page leaves the sink as it was."""
    told = Told()
    told.state.step()
    told.state.page(page(7, "a"))
    told.state.failed(CUT)
    assert told.sink.lists == 0
    assert isinstance(told.state.step(), PauseStep)
    told.list(8, "b")
    assert told.sink.present == {"b"}


@pytest.mark.parametrize("type_", ["ADDED", "MODIFIED", "DELETED", "BOOKMARK"])
def test_the_version_follows_each_event(told: Told, type_: str) -> None:
    """After any event the next watch asks for that event's version."""
    told.watch()
    told.state.line(event(type_, 9, "b"))
    told.state.ended()
    assert told.watch().query["resourceVersion"] == "9"


def test_a_stream_that_brought_something_is_resumed_at_once(told: Told) -> None:
    """No pause follows a watch that the server ended after an event."""
    told.watch()
    told.state.line(event("ADDED", 8))
    told.state.ended()
    assert isinstance(told.state.step(), WatchStep)


def test_a_quiet_stream_that_lived_is_resumed_at_once(told: Told) -> None:
    """No pause follows a watch that ended after its time without any event."""
    told.watch()
    told.state.lived(400)
    told.state.ended()
    assert isinstance(told.state.step(), WatchStep)


def test_a_stream_that_ends_at_once_and_empty_pauses(told: Told) -> None:
    """A server that closes every watch is not asked in a tight loop."""
    told.watch()
    told.state.lived(0.01)
    told.state.ended()
    assert isinstance(told.state.step(), PauseStep)


def test_410_after_events_lists_again_at_once_and_freshly(told: Told) -> None:
    """The list after a 410 is immediate and asks for the newest version, not the cache's."""
    told.watch()
    told.state.line(event("ADDED", 8))
    told.state.failed(GONE)
    assert told.state.step() == ListStep({})


def test_410_as_an_event_is_the_same(told: Told) -> None:
    """The protocol sends 410 as an ERROR event inside the stream."""
    told.watch()
    status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "old"}
    with pytest.raises(GoneError):
        told.state.line(json.dumps({"type": "ERROR", "object": status}).encode())


def test_410_right_after_a_list_pauses_first(told: Told) -> None:
    """A server that answers 410 to its own list's version is not asked in a tight loop."""
    told.watch()
    told.state.failed(GONE)
    assert isinstance(told.state.step(), PauseStep)
    assert isinstance(told.state.step(), ListStep)


def test_another_error_event_is_an_api_error(told: Told) -> None:
    """An ERROR event that is no 410 pauses and resumes from the same version."""
    told.watch()
    with pytest.raises(ApiError) as caught:
        told.state.line(b'{"type":"ERROR","object":{"kind":"Status","code":500}}')
    told.state.failed(caught.value)
    assert isinstance(told.state.step(), PauseStep)
    assert told.watch().query["resourceVersion"] == "7"


def test_a_relist_drops_what_vanished(told: Told) -> None:
    """The list after a gap replaces everything."""
    told.watch()
    told.state.line(event("ADDED", 8, "b"))
    told.state.failed(GONE)
    told.list(20, "c")
    assert told.sink.present == {"c"}


def test_after_several_failures_in_a_row_the_position_is_given_up(told: Told) -> None:
    """A server that came back with another history is listed again."""
    for _ in range(TRUST):
        told.watch()
        told.state.failed(CUT)
    assert isinstance(told.state.step(), PauseStep)
    assert isinstance(told.state.step(), ListStep)


def test_a_success_between_failures_starts_the_count_again(told: Told) -> None:
    """Failures are counted in a row only."""
    for number in range(3 * TRUST):
        told.watch()
        told.state.line(event("MODIFIED", 10 + number))
        told.state.failed(CUT)
    assert told.sink.lists == 1
    assert told.watch().query["resourceVersion"] == str(9 + 3 * TRUST)


def test_a_bad_object_is_reported_and_skipped(told: Told) -> None:
    """One object that breaks its type is named, the version goes on, the rest arrives."""
    told.watch()
    told.state.line(event("ADDED", 8, "good"))
    told.state.line(event("ADDED", 9, "bad", namespace="ns", labels=5))
    assert told.sink.present == {"a", "good"}
    assert told.state.bad_objects == 1
    assert "labels" in told.reports[0]
    told.state.ended()
    assert told.watch().query["resourceVersion"] == "9"


def test_a_bad_object_in_a_list_is_reported_and_skipped() -> None:
    """The other objects of a list are delivered."""
    told = Told()
    told.state.step()
    told.state.page(
        b'{"metadata":{"resourceVersion":"7"},"items":['
        b'{"metadata":{"name":"bad","namespace":"ns"},"spec":{"containers":3}},'
        b'{"metadata":{"name":"good"}}]}'
    )
    told.state.listed()
    assert told.sink.present == {"good"}
    assert "ns/bad" in told.reports[0]


def test_a_line_that_is_no_event_lists_again(told: Told) -> None:
    """Nobody knows what such a line was, so everything is asked for again."""
    told.watch()
    with pytest.raises(UnreachableError) as caught:
        told.state.line(b"<html>")
    told.state.failed(caught.value)
    assert isinstance(told.state.step(), PauseStep)
    assert isinstance(told.state.step(), ListStep)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"items":[]}', b'{"metadata":5}'])
def test_a_list_that_does_not_read_is_a_failure(body: bytes) -> None:
    """A list without a version or form never reaches the sink."""
    told = Told()
    told.state.step()

    def take() -> None:
        told.state.page(body)
        told.state.listed()

    with pytest.raises(UnreachableError):
        take()
    assert told.sink.lists == 0


def test_an_unknown_event_type_is_reported_and_passed(told: Told) -> None:
    """A newer server's event types do not stop the stream."""
    told.watch()
    told.state.line(event("FANCY", 8))
    assert "FANCY" in told.reports[0]
    assert told.sink.present == {"a"}


@given(st.integers(min_value=0, max_value=2**32), st.integers(min_value=1, max_value=30))
def test_pauses_grow_within_their_bounds(seed: int, failures: int) -> None:
    """Each pause lies between the shortest and thrice the one before, or the longest."""
    told = Told(seed)
    before = FIRST_PAUSE
    for _ in range(failures):
        told.state.failed(CUT)
        step = told.state.step()
        assert isinstance(step, PauseStep)
        assert FIRST_PAUSE <= step.seconds <= min(LAST_PAUSE, before * 3)
        before = step.seconds


@given(st.lists(st.tuples(st.sampled_from(["ADDED", "MODIFIED", "DELETED"]), st.integers(0, 4))))
def test_a_sink_ends_up_with_what_the_server_has(writes: list[tuple[str, int]]) -> None:
    """Whatever the order of events, the sink holds what the events leave."""
    told = Told()
    told.list(1)
    told.watch()
    wanted: set[str] = set()
    for version, (type_, number) in enumerate(writes, start=2):
        name = f"p{number}"
        told.state.line(event(type_, version, name))
        wanted = wanted - {name} if type_ == "DELETED" else wanted | {name}
    assert told.sink.present == wanted


def test_a_line_whose_text_is_no_unicode_is_no_event(told: Told) -> None:
    """Decoding raises an error of its own there; it must not end the daemon either."""
    told.watch()
    with pytest.raises(UnreachableError, match="no event"):
        told.state.line(b'{"type":"' + NO_TEXT + b'","object":{}}')
    assert told.state.version is None


def test_a_pod_that_is_nested_without_need_is_read_like_any(told: Told) -> None:
    """Anybody who may create pods can write such managedFields: nobody may be blinded by them."""
    deep = b'{"metadata":{"name":"deep","resourceVersion":"8","managedFields":[%s]}}' % DEEP
    told.watch()
    told.state.line(b'{"type":"ADDED","object":' + deep + b"}")
    assert (told.sink.present, told.state.version) == ({"a", "deep"}, "8")
    told.state.failed(GONE)
    told.state.step()
    told.state.page(b'{"metadata":{"resourceVersion":"9"},"items":[' + deep + b"]}")
    told.state.listed()
    assert (told.sink.present, told.reports) == ({"deep"}, [])


def test_an_object_whose_text_is_no_unicode_is_skipped_and_named(told: Told) -> None:
    """In a watch and in a list; the others are taken, and the version follows."""
    bad = b'{"metadata":{"name":"bad","uid":"' + NO_TEXT + b'","resourceVersion":"8"}}'
    told.watch()
    told.state.line(b'{"type":"ADDED","object":' + bad + b"}")
    told.state.line(event("ADDED", 9, "b"))
    assert (told.sink.present, told.state.version) == ({"a", "b"}, "9")
    told.state.failed(GONE)
    told.state.step()
    good = b'{"metadata":{"name":"c"}}'
    told.state.page(b'{"metadata":{"resourceVersion":"9"},"items":[' + bad + b"," + good + b"]}")
    told.state.listed()
    assert told.sink.present == {"c"}
    assert len(told.reports) == told.state.bad_objects == 2


def test_a_page_whose_text_is_no_unicode_is_a_failed_list() -> None:
    """It is tried again like any list that breaks off."""
    told = Told()
    told.state.step()
    with pytest.raises(UnreachableError, match="does not read"):
        told.state.page(b'{"metadata":{"resourceVersion":"' + NO_TEXT + b'"}}')


def test_an_error_whose_text_is_no_unicode_is_still_an_error(told: Told) -> None:
    """Its code is not known then, so it is any error."""
    told.watch()
    with pytest.raises(ApiError, match="500 Error"):
        told.state.line(b'{"type":"ERROR","object":{"code":410,"message":"' + NO_TEXT + b'"}}')


def test_a_list_that_is_too_old_at_once_is_paused_for(told: Told) -> None:
    """Only the first 410 after a watch that thrived is answered at once; a list has not thrived."""
    told.watch()
    told.state.line(event("ADDED", 8))
    told.state.failed(GONE)
    assert isinstance(told.state.step(), ListStep)
    told.state.failed(GONE)
    assert isinstance(told.state.step(), PauseStep)
