"""Reading Prometheus' answers: recorded ones, and every lie that one may tell."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.load.answers import PART, Query, error_text, read_answer
from scheduler.load.errors import AnswerError
from scheduler.load.queries import DEFAULT_QUERIES, NODE_LABELS
from scheduler.load.samples import METRICS, Metric, Reading, Sample
from tests.scheduler.load.answering import NOW, directory, recorded, taken, value, vector

PLAIN = Query("x")
TIMED = Query("x", "y", window=120.0)
NODES = directory("n1", "n2")
RECORDED_AT = 1795851000.0
RECORDED_NODES = directory("n1", "n2", n3=("127.0.0.1",))


def read(body: bytes, query: Query = TIMED) -> Reading:
    """Read an answer about CPUs."""
    return read_answer(body, "cpu", query, NODES, now=NOW)


@pytest.mark.parametrize("metric", METRICS)
def test_the_default_queries_answers_read(metric: Metric) -> None:
    """What a real Prometheus says to them has a share in use, and a time that is a scrape's."""
    query = DEFAULT_QUERIES[metric]
    body = recorded(metric)
    reading = read_answer(body, metric, query, RECORDED_NODES, now=RECORDED_AT)
    assert not reading.faults
    asked = msgspec.json.decode(body)["data"]["result"][0]["value"][0]
    for sample in reading.samples.values():
        assert 0 <= sample.value <= 1
        assert 0 < asked - sample.taken < 2
        assert sample.window == query.window


@pytest.mark.parametrize(
    ("metric", "nodes"),
    [
        ("cpu", {"n1", "n2", "n3"}),
        ("memory", {"n1", "n2", "n3"}),
        ("disk", {"n1", "n2", "n3"}),
        ("network", {"n2"}),
        ("gpu", {"n1"}),
    ],
)
def test_recorded_series_find_their_nodes(metric: Metric, nodes: set[str]) -> None:
    """By a label of their own, by an instance with the node's name, by an address and a port."""
    query = DEFAULT_QUERIES[metric]
    reading = read_answer(recorded(metric), metric, query, RECORDED_NODES, now=RECORDED_AT)
    assert set(reading.samples) == nodes


def test_the_busier_direction_of_the_busiest_device_counts() -> None:
    """0.5 of 1.25 GB/s sent; pods' devices, lo and devices of unknown speed are left out."""
    query = DEFAULT_QUERIES["network"]
    body = recorded("network")
    reading = read_answer(body, "network", query, RECORDED_NODES, now=RECORDED_AT)
    assert reading.samples["n2"].value == pytest.approx(0.4, abs=0.01)


def test_gpus_of_a_node_are_averaged() -> None:
    """90 and 10 percent are a half."""
    reading = read_answer(
        recorded("gpu"), "gpu", DEFAULT_QUERIES["gpu"], RECORDED_NODES, now=RECORDED_AT
    )
    assert reading.samples["n1"].value == 0.5


def test_several_series_of_a_node_count_by_the_highest() -> None:
    """A query that forgets to aggregate is told of, and never makes a node look idle."""
    body = recorded("per_cpu")
    reading = read_answer(body, "cpu", PLAIN, RECORDED_NODES, now=RECORDED_AT)
    series = msgspec.json.decode(body)["data"]["result"]
    highest = max(float(s["value"][1]) for s in series if s["metric"].get("node") == "n1")
    assert reading.samples["n1"].value == highest
    assert reading.faults["duplicate"] == len(series) - 3


SAMPLES = [
    ("a plain value", vector(({"node": "n1"}, 0.25)), PLAIN, Sample(0.25, NOW)),
    (
        "a value with its time",
        vector(value("n1", 0.25), taken("n1", NOW - 7)),
        TIMED,
        Sample(0.25, NOW - 7, 120),
    ),
    (
        "the time may stand before the value",
        vector(taken("n1", NOW - 7), value("n1", 0.25)),
        TIMED,
        Sample(0.25, NOW - 7, 120),
    ),
    (
        "the newest of two times counts",
        vector(value("n1", 0.25), taken("n1", NOW - 7), taken("n1", NOW - 3)),
        TIMED,
        Sample(0.25, NOW - 3, 120),
    ),
    (
        "in whatever order they come",
        vector(value("n1", 0.25), taken("n1", NOW - 3), taken("n1", NOW - 7)),
        TIMED,
        Sample(0.25, NOW - 3, 120),
    ),
    (
        "without its time it is as old as its window",
        vector(value("n1", 0.25)),
        TIMED,
        Sample(0.25, NOW - 120, 120),
    ),
    (
        "so it is when the time is no number",
        vector(value("n1", 0.25), taken("n1", "NaN")),
        TIMED,
        Sample(0.25, NOW - 120, 120),
    ),
    (
        "a little below nothing is nothing",
        vector(value("n1", -0.01), taken("n1", NOW)),
        TIMED,
        Sample(0.0, NOW, 120),
    ),
    (
        "a little above all is all",
        vector(value("n1", 1.04), taken("n1", NOW)),
        TIMED,
        Sample(1.0, NOW, 120),
    ),
    (
        "a clock a little ahead of ours is now",
        vector(value("n1", 0.5), taken("n1", NOW + 9)),
        TIMED,
        Sample(0.5, NOW, 120),
    ),
    (
        "a very old sample is taken as what it is",
        vector(value("n1", 0.5), taken("n1", 3)),
        TIMED,
        Sample(0.5, 3, 120),
    ),
]


@pytest.mark.parametrize(("what", "body", "query", "want"), SAMPLES)
def test_a_sample_is_read(what: str, body: bytes, query: Query, want: Sample) -> None:
    """Value, time and window."""
    reading = read(body, query)
    assert reading.samples == {"n1": want}, what
    assert reading.faults == {}


LIES = [
    ("nan", ({"node": "n1"}, "NaN")),
    ("infinite", ({"node": "n1"}, "+Inf")),
    ("infinite", ({"node": "n1"}, "-Inf")),
    ("negative", ({"node": "n1"}, "-0.2")),
    ("above_one", ({"node": "n1"}, "37.5")),
    ("unreadable", ({"node": "n1"}, "idle")),
    ("unreadable", ({"node": "n1"}, "")),
    ("unreadable", ({"node": "n1"}, "0_1")),
    ("unknown_node", ({"node": "n9"}, "0.5")),
    ("unknown_node", ({}, "0.5")),
    ("unknown_node", ({"pod": "n1"}, "0.5")),
]


@pytest.mark.parametrize(("fault", "series"), LIES)
def test_a_lie_is_counted_and_the_rest_is_taken(
    fault: str, series: tuple[dict[str, str], object]
) -> None:
    """One bad series costs nobody else their sample."""
    reading = read(vector(series, ({"node": "n2"}, 0.5)), PLAIN)
    assert reading.samples == {"n2": Sample(0.5, NOW)}
    assert reading.faults == {fault: 1}
    assert reading.example.startswith(f"{fault}: ")


def test_a_sample_of_the_future_is_not_taken() -> None:
    """It would look fresh for as long as its clock is ahead."""
    reading = read(vector(value("n1", 0.5), taken("n1", NOW + 60)))
    assert reading.samples == {}
    assert reading.faults == {"future": 1}
    assert reading.example == "future: n1 60 s ahead"


def test_the_higher_of_two_values_counts() -> None:
    """A node thought too busy costs less than one thought idle."""
    for order in ((0.2, 0.7), (0.7, 0.2)):
        series = [({"node": "n1"}, number) for number in order]
        reading = read(vector(*series), PLAIN)
        assert reading.samples["n1"].value == 0.7
        assert reading.faults == {"duplicate": 1}


@pytest.mark.parametrize("name", ["infinite", "nan"])
def test_recorded_numbers_that_are_none(name: str) -> None:
    """Prometheus writes them as text, in valid JSON."""
    reading = read_answer(recorded(name), "cpu", PLAIN, RECORDED_NODES, now=RECORDED_AT)
    assert reading.samples == {}
    assert set(reading.faults) == {name}


def test_a_histogram_has_no_value() -> None:
    """Native histograms come with another field."""
    body = vector(({"node": "n2"}, 0.5)).replace(
        b'"result":[', b'"result":[{"metric":{"node":"n1"},"histogram":[1,{"count":"1"}]},'
    )
    reading = read(body, PLAIN)
    assert set(reading.samples) == {"n2"}
    assert reading.faults == {"unreadable": 1}


def test_an_empty_answer_is_an_answer() -> None:
    """Nobody has that metric."""
    assert read(recorded("empty")).samples == {}


GOOD = vector(value("n1", 0.25))
BROKEN = [
    (b"", "not an answer of Prometheus"),
    (GOOD[:-20], "not an answer of Prometheus"),
    (GOOD + b"}", "not an answer of Prometheus"),
    (b"<!DOCTYPE html><html>Sign in</html>", "'<!DOCTYPE html>"),
    (b"\xff\xfe\x00", "not an answer of Prometheus"),
    (b'{"status":"success","data":' + b"[" * 100_000, "not an answer of Prometheus"),
    (b"null", "not an answer of Prometheus"),
    (b'{"status":"success"}', "status 'success': no data"),
    (recorded("scalar"), "want a vector, the query gives a scalar"),
    (recorded("string"), "want a vector, the query gives a string"),
    (recorded("matrix"), "want a vector, the query gives a matrix"),
    (recorded("bad_query"), "status 'error': invalid parameter"),
    (GOOD.replace(b'"0.25"', b"0.25"), "Expected `str`, got `float`"),
    (GOOD.replace(b'"n1"', b"1"), "Expected `str`, got `int`"),
]


@pytest.mark.parametrize(("body", "problem"), BROKEN)
def test_an_answer_that_is_none_is_refused_whole(body: bytes, problem: str) -> None:
    """One error, short, that shows how the body begins."""
    with pytest.raises(AnswerError) as caught:
        read(body)
    assert problem in str(caught.value)
    assert len(str(caught.value)) < 250
    assert caught.value.outcome == "unreadable"


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_bytes_break_the_reader(body: bytes) -> None:
    """It reads, or it says why not."""
    try:
        reading = read(body)
    except AnswerError:
        return
    assert isinstance(reading, Reading)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["n1", "n2", "n3", ""]),
            st.floats(width=32).map(repr)
            | st.sampled_from(["NaN", "+Inf", "-Inf", "x"])
            | st.floats(0, 1).map(repr),
            st.sampled_from(["value", "taken", ""]),
        )
    ),
    st.booleans(),
)
def test_whatever_is_told_samples_stay_samples(
    told: list[tuple[str, str, str]], timed: bool
) -> None:
    """Values lie in 0 to 1, times are finite and not ahead; every series is taken or counted."""
    body = vector(*(({"node": name, PART: part}, number) for name, number, part in told))
    reading = read(body, TIMED if timed else PLAIN)
    for node, sample in reading.samples.items():
        assert node in {"n1", "n2"}
        assert 0 <= sample.value <= 1
        assert math.isfinite(sample.taken)
        assert sample.taken <= NOW
    times = sum(
        part == "taken" and name in {"n1", "n2"} and number != "x" for name, number, part in told
    )
    assert len(reading.samples) + sum(reading.faults.values()) == len(told) - times


def test_the_text_of_a_query_has_both_halves() -> None:
    """Labels are put in, and a comment cannot swallow what follows."""
    text = Query("a by ($labels) # note", "b($labels)").text(("node", "instance"))
    assert text.splitlines() == [
        "label_replace(",
        "a by (node, instance) # note",
        ', "gputopo_part", "value", "", "") or label_replace(',
        "b(node, instance)",
        ', "gputopo_part", "taken", "", "")',
    ]
    assert Query("up").text(NODE_LABELS) == "up"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            recorded("bad_query"),
            'bad_data: invalid parameter "query": 1:6: parse error: unclosed left parenthesis',
        ),
        (recorded("too_slow"), "timeout: query timed out in query queue"),
        (b"<html>502</html>", ""),
        (b"[" * 100_000, ""),
        (GOOD, ""),
    ],
)
def test_the_text_of_an_error_is_prometheus_own_or_nothing(body: bytes, text: str) -> None:
    """Pages of proxies are not repeated."""
    assert error_text(body) == text
