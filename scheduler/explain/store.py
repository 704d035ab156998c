"""Records by pod, bounded in time, number and bytes. What is oldest loses detail first, then goes.

All times are Unix seconds and given. Nothing here is slow: the dearest step is thinning a verdict,
some 50 us at 5,000 nodes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

import msgspec

from scheduler.engine.request import PodRequest
from scheduler.explain.digest import thin
from scheduler.explain.errors import ExpiredError, UnknownPodError
from scheduler.explain.names import Names
from scheduler.explain.record import Binding, Outcome, Record, Verdict

EXPIRED_KEPT: Final = 10_000
"""Pods whose record is gone and who are still known to have had one."""

Key = tuple[str, str]


class Limits(msgspec.Struct, frozen=True):
    """How long records are kept after the last try, how many at most, and in how many bytes."""

    seconds: float = 600.0
    records: int = 10_000
    nbytes: int = 96 << 20


class Store:
    """Records by pod UID; of one name the newest pod is found."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.names = Names()
        self.nbytes = 0
        self.dropped = 0
        self._records: OrderedDict[str, Record] = OrderedDict()
        self._uids: dict[Key, str] = {}
        self._complete: OrderedDict[str, None] = OrderedDict()
        self._expired: OrderedDict[Key, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        """Go through the records, the newest first."""
        return reversed(self._records.values())

    def get(self, uid: str) -> Record | None:
        """Return a pod's record."""
        return self._records.get(uid)

    def find(self, namespace: str, name: str, now: float) -> Record:
        """Return the record of the pod of this name.

        Raises ExpiredError if there was one, UnknownPodError if none is known.
        """
        self.expire(now)
        uid = self._uids.get((namespace, name))
        if uid is not None:
            return self._records[uid]
        gone = self._expired.get((namespace, name))
        if gone is not None:
            raise ExpiredError(namespace, name, now - gone, self.limits.seconds)
        raise UnknownPodError(namespace, name)

    def note(
        self,
        request: PodRequest,
        outcome: Outcome,
        now: float,
        *,
        verdict: Verdict | None = None,
        text: str = "",
        trace: str = "",
    ) -> Record:
        """Take another try of a pod. A pod that is bound stays so."""
        before = self._records.get(request.uid)
        if before is not None and before.outcome == "bound":
            return before
        return self._put(
            Record(
                request=request,
                since=before.since if before is not None else now,
                updated=now,
                attempts=(before.attempts if before is not None else 0) + 1,
                outcome=outcome,
                text=text,
                verdict=verdict,
                trace=trace or (before.trace if before is not None else ""),
            ),
            now,
        )

    def bound(self, uid: str, binding: Binding) -> Record | None:
        """Note that a pod was bound; None if no decision about it is kept."""
        before = self._records.get(uid)
        if before is None:
            return None
        return self._put(
            msgspec.structs.replace(
                before, outcome="bound", text="", binding=binding, updated=binding.at
            ),
            binding.at,
        )

    def gone(self, uid: str, now: float) -> Record | None:
        """Note that a pod is no more; None if it was bound, or is not known here."""
        before = self._records.get(uid)
        if before is None or before.outcome in {"bound", "gone"}:
            return None
        text = "the pod is gone"
        return self._put(
            msgspec.structs.replace(before, outcome="gone", text=text, updated=now), now
        )

    def expire(self, now: float) -> None:
        """Forget what is too old."""
        while self._records:
            oldest = next(iter(self._records.values()))
            if now - oldest.updated < self.limits.seconds:
                return
            self._drop(oldest)

    def _put(self, record: Record, now: float) -> Record:
        uid = record.request.uid
        before = self._records.pop(uid, None)
        if before is not None:
            self.nbytes -= before.nbytes
        self._records[uid] = record
        self._uids[record.key] = uid
        self._expired.pop(record.key, None)
        self.nbytes += record.nbytes
        self._complete.pop(uid, None)
        if record.verdict is not None and record.verdict.complete:
            self._complete[uid] = None
        self.expire(now)
        self._shrink()
        return record

    def _shrink(self) -> None:
        while self.nbytes > self.limits.nbytes and self._complete:
            uid, _ = self._complete.popitem(last=False)
            record = self._records[uid]
            if record.verdict is not None:
                small = msgspec.structs.replace(record, verdict=thin(record.verdict))
                self.nbytes += small.nbytes - record.nbytes
                self._records[uid] = small
        while len(self._records) > self.limits.records or (
            self.nbytes > self.limits.nbytes and len(self._records) > 1
        ):
            self.dropped += 1
            self._drop(next(iter(self._records.values())))

    def _drop(self, record: Record) -> None:
        uid = record.request.uid
        del self._records[uid]
        self._complete.pop(uid, None)
        self.nbytes -= record.nbytes
        if self._uids.get(record.key) == uid:
            del self._uids[record.key]
            self._expired[record.key] = record.updated
            if len(self._expired) > EXPIRED_KEPT:
                self._expired.popitem(last=False)
