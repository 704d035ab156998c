"""Prometheus' answers to instant queries: bytes -> samples. The JSON is read strictly.

An instant query stamps every value with the time of the question, however old the sample behind
it is (up to 5 minutes). So each metric is asked together with the time of its newest sample: the
two halves of one answer are told apart by the label PART.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from scheduler.load.directory import Directory
from scheduler.load.errors import AnswerError, cut
from scheduler.load.samples import Intake, Metric, Reading

SOURCE: Final = "prometheus"

PART: Final = "gputopo_part"
"""The label that tells values from times."""


class Query(msgspec.Struct, frozen=True):
    """How a metric is asked for.

    `value` is PromQL for the share in use (0 to 1), one series a node. `taken` is PromQL for the
    Unix time of the newest sample behind it; None takes the time of the question. `window` is
    over how many seconds the value is an average.
    """

    value: str
    taken: str | None = None
    window: float = 0.0

    def text(self, labels: tuple[str, ...]) -> str:
        """Return the one query; ``$labels`` stands for the labels that name nodes."""
        by = ", ".join(labels)
        value = self.value.replace("$labels", by)
        if self.taken is None:
            return value
        # On lines of their own: a comment at the end of one must not swallow the rest.
        taken = self.taken.replace("$labels", by)
        return (
            f'label_replace(\n{value}\n, "{PART}", "value", "", "") or '
            f'label_replace(\n{taken}\n, "{PART}", "taken", "", "")'
        )


class _Series(msgspec.Struct):
    metric: dict[str, str]
    value: tuple[float, str] | None = None


class _Data(msgspec.Struct, rename="camel"):
    result_type: str
    result: msgspec.Raw


class _Answer(msgspec.Struct, rename="camel"):
    status: str
    data: _Data | None = None
    error_type: str = ""
    error: str = ""


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_result = msgspec.json.Decoder(list[_Series]).decode

# Bytes that are no UTF-8 and nesting without end have errors of their own.
_FAULTS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def read_answer(
    body: bytes, metric: Metric, query: Query, directory: Directory, *, now: float
) -> Reading:
    """Read an answer to `query.text`. `now` is in Unix seconds.

    Raises AnswerError if it is not the answer to an instant query. What is wrong with single
    series is counted in the reading.
    """
    intake = Intake(metric, SOURCE, now)
    values: list[tuple[str, float, float]] = []
    times: dict[str, float] = {}
    for series in _series_of(body):
        node = directory.find(series.metric)
        if node is None:
            intake.refuse("unknown_node", cut(str(series.metric)))
            continue
        number = _number(series)
        if series.value is None or number is None:
            intake.refuse("unreadable", cut(f"{node} {series.value}"))
        elif series.metric.get(PART) != "taken":
            values.append((node, number, series.value[0]))
        elif math.isfinite(number):
            times[node] = max(number, times.get(node, number))
    for node, value, asked in values:
        # Without a time: at worst as old as the oldest sample that the average looks at.
        taken = asked if query.taken is None else times.get(node, asked - query.window)
        intake.offer(node, value, taken, query.window)
    return intake.close()


def error_text(body: bytes) -> str:
    """Return what an error answer says, empty if it is not Prometheus' own."""
    try:
        answer = _decode_answer(body)
    except _FAULTS:
        return ""
    return cut(f"{answer.error_type}: {answer.error}") if answer.status == "error" else ""


def _series_of(body: bytes) -> list[_Series]:
    try:
        answer = _decode_answer(body)
        if answer.status != "success" or answer.data is None:
            raise AnswerError(cut(f"status {answer.status!r}: {answer.error or 'no data'}"))
        kind = answer.data.result_type
        if kind != "vector":
            raise AnswerError(cut(f"want a vector, the query gives a {kind}"))
        return _decode_result(answer.data.result)
    except _FAULTS as error:
        begins = body[:40].decode(errors="replace")
        raise AnswerError(cut(f"not an answer of Prometheus ({error}): {begins!r}")) from None


def _number(series: _Series) -> float | None:
    """Return the value; None for a histogram and for what is no number."""
    if series.value is None:
        return None
    text = series.value[1]
    try:
        # Python would also read 1_0.
        return None if "_" in text else float(text)
    except ValueError:
        return None
