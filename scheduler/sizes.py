"""The request sizes that links are weighed by, learned from the pods that were seen."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from scheduler.engine.cluster import ClusterState
from scheduler.engine.workload import mix_distance, size_mix
from topology.tables import tables_for

SIZES_SEEN: Final = 200
"""Pods that must have been seen before their sizes replace the assumed mix."""

SIZES_DIFFER: Final = 0.1
"""The part of the GPUs that must go to other sizes before tables are built anew."""

_log = structlog.get_logger("scheduler.sizes")


async def follow_sizes(cluster: ClusterState) -> bool:
    """Weigh links by the sizes that pods really ask for, once they differ from what is assumed.

    Tables are built anew for every kind of machine, beside the loop; small differences do not
    count. Returns whether the sizes changed.
    """
    expected = cluster.outlook.expected
    if expected.seen < SIZES_SEEN:
        return False
    sizes = size_mix(expected.counts())
    if sizes is None or mix_distance(sizes, cluster.sets.tables.mix) < SIZES_DIFFER:
        return False
    for hardware in tuple(cluster.columns.hardware_list):
        await asyncio.to_thread(tables_for, hardware.links, sizes)
    cluster.sets.use(sizes)
    _log.info("sizes learned", pods=round(expected.seen), sizes=dict(sizes.shares))
    return True
