"""The bell at which a main thread waits."""

from __future__ import annotations

import gc
import math
import signal
import threading

from hypothesis import given
from hypothesis import strategies as st

from runtime.bell import Bell


def test_a_bell_that_nobody_rings_is_waited_for_in_vain() -> None:
    """The wait ends by itself, and says so."""
    assert not Bell().wait(0.01)


@given(rings=st.integers(1, 100))
def test_rings_before_a_wait_are_heard_once(rings: int) -> None:
    """However often it was rung: one wait ends at once, the next one hears nothing."""
    bell = Bell()
    for _ in range(rings):
        bell.ring()
    assert bell.wait(math.inf)
    assert not bell.wait(0)


def test_a_full_bell_can_be_rung_still() -> None:
    """A pipe holds 65,536 bytes; more rings are neither an error nor a wait."""
    bell = Bell()
    for _ in range(70_000):
        bell.ring()
    assert bell.wait(math.inf)
    assert not bell.wait(0)


def test_another_thread_ends_a_wait() -> None:
    """A wait without limit ends when the bell is rung."""
    bell = Bell()
    ringer = threading.Timer(0.05, bell.ring)
    ringer.start()
    assert bell.wait(math.inf)
    ringer.join()


def test_a_bell_that_is_gone_hears_no_signals() -> None:
    """Its descriptors may be somebody else's by then."""
    before = signal.set_wakeup_fd(-1)
    bell = Bell()
    bell.hear_signals()
    del bell
    gc.collect()
    assert signal.set_wakeup_fd(before) == -1
