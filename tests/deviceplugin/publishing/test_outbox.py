"""The pace of writes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from deviceplugin.publishing.outbox import Outbox


@given(
    script=st.lists(
        st.tuples(st.sampled_from(["offer", "work", "fail"]), st.integers(0, 5)), max_size=60
    )
)
def test_the_outbox_keeps_its_pace_and_its_newest_value(
    script: list[tuple[str, int]],
) -> None:
    """Whatever fails: writes keep their distance, and what is written last is what was offered."""
    outbox = Outbox(interval=0.5)
    now, last_write, wanted, there = 0.0, float("-inf"), None, None
    for what, number in script:
        now += number / 8  # binary fractions: no rounding
        if what == "offer":
            wanted = str(number)
            outbox.offer("key", wanted)
            continue
        due = outbox.due(now)
        assert (due is None) == (wanted == there)
        if due is None:
            continue
        now += due
        if what == "fail":
            outbox.failed(now)
            continue
        values = outbox.pending()
        assert values == {"key": wanted}
        assert now - last_write >= 0.5
        outbox.wrote(values, now)
        last_write, there = now, values["key"]
