"""The built-in plugins, one file each."""

from __future__ import annotations

from scheduler.engine.framework import Framework
from scheduler.engine.plugins.balance import Balance
from scheduler.engine.plugins.exact_set import ExactSet
from scheduler.engine.plugins.fragmentation import Fragmentation
from scheduler.engine.plugins.free_gpus import FreeGpus
from scheduler.engine.plugins.gpu_count import GpuCount
from scheduler.engine.plugins.gpu_kind import GpuKind
from scheduler.engine.plugins.gpu_packing import GpuPacking
from scheduler.engine.plugins.gpu_set import GpuSetChoice
from scheduler.engine.plugins.gpu_spreading import GpuSpreading
from scheduler.engine.plugins.held_back import HeldBack
from scheduler.engine.plugins.init_containers import InitContainers
from scheduler.engine.plugins.link_loss import LinkLoss
from scheduler.engine.plugins.link_quality import LinkQuality
from scheduler.engine.plugins.load import Load
from scheduler.engine.plugins.model_fit import ModelFit
from scheduler.engine.plugins.nic import Nic
from scheduler.engine.plugins.node_room import NodeRoom
from scheduler.engine.plugins.numa import Numa
from scheduler.engine.plugins.obtainable_set import ObtainableSet
from scheduler.engine.plugins.packing import Packing
from scheduler.engine.plugins.spreading import Spreading


def built_in() -> Framework:
    """Return a framework of the built-in plugins. Filters go from lasting reasons to passing ones.

    A candidate gets the first reason that stands against it, so one that can never do is not
    called busy, and preemption is not tried there.
    """
    return Framework(
        pre_filters=(InitContainers(),),
        filters=(
            GpuKind(),
            GpuCount(),
            ExactSet(),
            HeldBack(),
            FreeGpus(),
            ObtainableSet(),
        ),
        stock_filters=(NodeRoom(),),
        scores=(
            LinkQuality(),
            LinkLoss(),
            Fragmentation(),
            Balance(),
            ModelFit(),
            Packing(),
            GpuPacking(),
            Spreading(),
            GpuSpreading(),
            Numa(),
            Nic(),
            Load(),
        ),
        reserve=GpuSetChoice(),
    )
