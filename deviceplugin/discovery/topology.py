"""NVML and sysfs -> NodeTopology.

One GPU that cannot be read is left out and reported; it changes no answer about the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import msgspec

from deviceplugin.discovery.mig_caps import read_cap_minor
from deviceplugin.discovery.sysfs import (
    PciNic,
    PciPath,
    compare_paths,
    read_cpus,
    read_nics,
    read_path,
)
from deviceplugin.errors import DiscoveryError, NvmlError
from deviceplugin.nvml.interface import (
    FATAL,
    Code,
    Device,
    DriverFacts,
    Link,
    MigDevice,
    Nvml,
    RemoteType,
)
from topology.cpulist import format_list, parse_list
from topology.errors import ModelError
from topology.links import Level
from topology.model import Clique, Gpu, Nic, NodeTopology
from topology.pci import pci_order

T = TypeVar("T")


class GpuProblem(msgspec.Struct, frozen=True):
    """A GPU that NVML numbers and that could not be read. `uuid` is "" if it is not even known."""

    index: int
    uuid: str
    reason: str
    code: int


class Discovery(msgspec.Struct, frozen=True):
    """What was found, and the GPUs that were not.

    `mig` has the uuid of each GPU in MIG mode, with its MIG devices: () if it is not cut yet.
    `driver` is what NVML says of itself.
    """

    topology: NodeTopology
    problems: tuple[GpuProblem, ...] = ()
    mig: dict[str, tuple[MigDevice, ...]] = {}
    driver: DriverFacts = DriverFacts()


class _Found(msgspec.Struct, frozen=True):
    """A GPU that was read, before it is compared with the others."""

    gpu: Gpu
    device: Device
    links: tuple[Link, ...]
    path: PciPath | None
    clique: Clique | None
    mig: tuple[MigDevice, ...] | None
    mig_capable: bool


def discover(nvml: Nvml, sysfs_root: Path, proc_root: Path = Path("/proc")) -> Discovery:
    """Read all GPUs and NICs of the node.

    Raises DiscoveryError if NVML does not even count its GPUs, if it dies on the way, or if its
    answers contradict each other (two GPUs with one uuid).
    """
    try:
        count = nvml.count()
    except NvmlError as error:
        raise DiscoveryError(str(error)) from error
    found: list[_Found] = []
    problems: list[GpuProblem] = []
    for index in range(count):
        result = _read_gpu(nvml, sysfs_root, proc_root, index)
        if isinstance(result, GpuProblem):
            problems.append(result)
        else:
            found.append(result)
    found.sort(key=lambda one: (pci_order(one.gpu.pci), one.gpu.index))
    try:
        topology = _relate(nvml, found, read_nics(sysfs_root))
    except ModelError as error:
        raise DiscoveryError(f"NVML contradicts itself: {error}") from error
    mig = {one.gpu.uuid: one.mig for one in found if one.mig is not None}
    try:
        version = nvml.driver_version()
        cuda = _ask(nvml.cuda_version, "")
    except NvmlError as error:
        # A driver that goes away in the middle leaves pairs without links, which would be believed.
        raise DiscoveryError(f"NVML died during the discovery: {error}") from error
    driver = DriverFacts(
        version=version,
        cuda=cuda,
        mig_capable=frozenset(one.gpu.uuid for one in found if one.mig_capable),
    )
    return Discovery(topology=topology, problems=tuple(problems), mig=mig, driver=driver)


def _read_gpu(nvml: Nvml, sysfs_root: Path, proc_root: Path, index: int) -> _Found | GpuProblem:
    uuid = ""
    try:
        device = nvml.device(index)
        uuid = nvml.uuid(device)
        pci = nvml.pci(device)
        path = read_path(sysfs_root, pci)
        numa = _read_numa(nvml, device, path)
        gpu = Gpu(
            uuid=uuid,
            index=index,
            minor=_ask(lambda: nvml.minor(device), index),
            pci=pci,
            model=_ask(lambda: nvml.name(device), ""),
            compute=_ask(lambda: nvml.compute_capability(device), ""),
            memory_mib=_ask(lambda: nvml.memory_mib(device), 0),
            pcie_gen=_ask(lambda: nvml.pcie_generation(device), 0),
            numa=numa,
            cpus=_read_cpus(nvml, device, read_cpus(sysfs_root, pci)),
            numa_node=_choose_node(numa, path),
        )
        return _Found(
            gpu=gpu,
            device=device,
            links=_ask(lambda: nvml.links(device), ()),
            path=path,
            clique=_ask(lambda: nvml.clique(device), None),
            mig=_read_mig(nvml, device, proc_root, gpu.minor),
            mig_capable=_ask(lambda: nvml.mig_mode(device), None) is not None,
        )
    except NvmlError as error:
        return GpuProblem(index=index, uuid=uuid, reason=str(error), code=error.code)
    except ModelError as error:
        return GpuProblem(index=index, uuid=uuid, reason=str(error), code=Code.UNKNOWN)


def _ask(question: Callable[[], T], silent: T) -> T:
    """Ask for what a GPU may not know; a lost GPU is lost as a whole."""
    try:
        return question()
    except NvmlError as error:
        if error.code in FATAL:
            raise
        return silent


def _read_mig(
    nvml: Nvml, device: Device, proc_root: Path, minor: int
) -> tuple[MigDevice, ...] | None:
    """Return the MIG devices, None for a GPU that is not in MIG mode."""
    if not _ask(lambda: nvml.mig_mode(device), None):
        return None
    return tuple(
        msgspec.structs.replace(
            one,
            gpu_minor=read_cap_minor(proc_root, minor, one.gpu_instance),
            compute_minor=read_cap_minor(proc_root, minor, one.gpu_instance, one.compute_instance),
        )
        for one in nvml.mig_devices(device)
    )


def _read_numa(nvml: Nvml, device: Device, path: PciPath | None) -> str | None:
    """Return the near NUMA nodes. NOT_SUPPORTED is an answer (None); other silence asks sysfs."""
    try:
        return format_list(nvml.memory_affinity(device))
    except NvmlError as error:
        if error.code in FATAL:
            raise
        if error.code == Code.NOT_SUPPORTED or path is None or path.numa_node < 0:
            return None
        return str(path.numa_node)


def _read_cpus(nvml: Nvml, device: Device, from_sysfs: str | None) -> str | None:
    """Return the near CPUs, sysfs first: NVML cuts them by the caller's cpuset."""
    if from_sysfs is not None:
        return from_sysfs
    cpus = _ask(lambda: nvml.cpu_affinity(device), None)
    return None if cpus is None else format_list(cpus)


def _choose_node(numa: str | None, path: PciPath | None) -> int | None:
    """Return the one NUMA node to align with: sysfs' unless NVML's list contradicts it."""
    near = None if numa is None else parse_list(numa)
    if path is not None and path.numa_node >= 0 and (near is None or path.numa_node in near):
        return path.numa_node
    return near[0] if near is not None and len(near) == 1 else None


def _relate(nvml: Nvml, found: list[_Found], nics: tuple[PciNic, ...]) -> NodeTopology:
    count = len(found)
    nvlinks = [[0] * count for _ in range(count)]
    pcie = [[Level.SELF] * count for _ in range(count)]
    groups = list(range(count))
    switched = [False] * count
    known = frozenset(one.gpu.pci for one in found)
    to_switch = [_count_switch_links(one.links, known) for one in found]
    for a in range(count):
        for b in range(a):
            first, second = found[a], found[b]
            pcie[a][b] = pcie[b][a] = _read_level(nvml, first, second)
            links = _count_direct(first, second)
            if not links and to_switch[a] and to_switch[b] and _reach(nvml, first, second):
                links = min(to_switch[a], to_switch[b])
                switched[a] = switched[b] = True
                groups = [groups[b] if group == groups[a] else group for group in groups]
            nvlinks[a][b] = nvlinks[b][a] = links
    return NodeTopology(
        gpus=tuple(one.gpu for one in found),
        nvlinks=tuple(map(tuple, nvlinks)),
        switch=_number(group if on else -1 for group, on in zip(groups, switched, strict=True)),
        pcie=tuple(map(tuple, pcie)),
        nics=tuple(_relate_nic(nic, found, nics) for nic in nics),
        clique=_common_clique(found),
    )


def _number(groups: Iterable[int]) -> tuple[int, ...]:
    """Renumber the groups from 0 in order of appearance; -1 stays."""
    numbers: dict[int, int] = {-1: -1}
    return tuple(numbers.setdefault(group, len(numbers) - 1) for group in groups)


def _count_direct(first: _Found, second: _Found) -> int:
    """Return the links whose far end is the other GPU; while one comes up the ends may differ."""
    there = sum(link.remote_pci == second.gpu.pci for link in first.links)
    back = sum(link.remote_pci == first.gpu.pci for link in second.links)
    return min(there, back)


def _count_switch_links(links: tuple[Link, ...], known: frozenset[str]) -> int:
    """Return how many links go to a switch.

    In a virtual machine the switch is hidden: the far end is of unknown type or has no sensible
    address. A far end that is a GPU with an address is a GPU that is lost or not ours.
    """
    return sum(
        link.remote is RemoteType.SWITCH
        or link.remote_pci is None
        or (link.remote is RemoteType.UNKNOWN and link.remote_pci not in known)
        for link in links
    )


def _reach(nvml: Nvml, first: _Found, second: _Found) -> bool:
    """Return whether two GPUs with links to switches reach each other over them.

    An old driver cannot say; one that names the far end a switch is then believed.
    """
    try:
        return nvml.nvlink_access(first.device, second.device)
    except NvmlError as error:
        if error.code not in (Code.NOT_SUPPORTED, Code.FUNCTION_NOT_FOUND):
            return False
        return all(
            any(link.remote is RemoteType.SWITCH for link in one.links) for one in (first, second)
        )


def _read_level(nvml: Nvml, first: _Found, second: _Found) -> Level:
    try:
        return nvml.common_ancestor(first.device, second.device)
    except NvmlError:
        if first.path is None or second.path is None:
            return Level.SYS
        # Two GPUs share an address only if NVML is confused; they are still two.
        return max(compare_paths(first.path, second.path), Level.PIX)


def _relate_nic(nic: PciNic, found: list[_Found], nics: tuple[PciNic, ...]) -> Nic:
    return Nic(
        name=nic.name,
        pci=nic.path.device,
        gpus=tuple(
            Level.SYS if one.path is None else max(compare_paths(nic.path, one.path), Level.PIX)
            for one in found
        ),
        nics=tuple(
            Level.SELF if other is nic else max(compare_paths(nic.path, other.path), Level.PIX)
            for other in nics
        ),
    )


def _common_clique(found: list[_Found]) -> Clique | None:
    """Return the clique that all GPUs share; a node whose GPUs disagree is in none as a whole."""
    cliques = {one.clique for one in found}
    return cliques.pop() if len(cliques) == 1 else None
