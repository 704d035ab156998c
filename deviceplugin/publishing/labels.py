"""Labels that tell what a node has: those of GPU feature discovery, and of its links. Pure.

The first are named and worded as NVIDIA's gpu-feature-discovery does, so that selectors written for
it go on. It tells nothing of links; ours lie under gputopo.dev/.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from deviceplugin.config.model import MigStrategy
from deviceplugin.config.names import normalise_mig_name
from deviceplugin.nvml.interface import MigDevice
from deviceplugin.resources.devices import Resource, Sharing
from deviceplugin.resources.mig import check_single
from deviceplugin.resources.stock import Stock
from topology.model import Gpu, NodeTopology

NVIDIA: Final = "nvidia.com"
OURS: Final = "gputopo.dev"

# By compute capability, the highest that is not above: the vendor's names of architectures.
_FAMILIES: Final = (
    ((12, 0), "blackwell"),
    ((10, 0), "blackwell"),
    ((9, 0), "hopper"),
    ((8, 9), "ada-lovelace"),
    ((8, 0), "ampere"),
    ((7, 5), "turing"),
    ((7, 0), "volta"),
    ((6, 0), "pascal"),
    ((5, 0), "maxwell"),
    ((3, 0), "kepler"),
    ((2, 0), "fermi"),
    ((1, 0), "tesla"),
)
_NVLINK_GENERATIONS: Final = ((10, 5), (9, 4), (8, 3), (7, 2), (6, 1))
"""Compute capability's major number to the generation of NVLink that came with it."""


class Hardware(msgspec.Struct, frozen=True):
    """What sysfs tells beside the GPUs: the machine's name, and the GPUs that have an output."""

    machine: str = ""
    graphics: frozenset[str] = frozenset()


def labels_of(stock: Stock, hardware: Hardware) -> dict[str, str]:
    """Return all labels of a node; {} before the first discovery."""
    if not stock.inventory.topology.gpus:
        return {}
    return dict(
        sorted(
            (
                *_driver(stock),
                *_gpus(stock, hardware),
                *_parts(stock),
                *_links(stock.inventory.topology),
            )
        )
    )


def sanitise(text: str) -> str:
    """Return a text as a label's value may be: blanks become dashes, brackets vanish.

    >>> sanitise("Tesla V100-SXM2-16GB (rev. 2)"), sanitise(" [NVIDIA] A100 ")
    ('Tesla-V100-SXM2-16GB-rev.-2', 'NVIDIA-A100')
    """
    words = re.sub(r"[()\[\]{}<>]", "", text).split()
    joined = re.sub(r"[^A-Za-z0-9._-]", "", "-".join(words))
    return joined[:63].strip("-._")


def _driver(stock: Stock) -> Iterator[tuple[str, str]]:
    driver = stock.inventory.driver
    parts = driver.version.split(".")
    if driver.version:
        yield f"{NVIDIA}/cuda.driver-version.full", sanitise(driver.version)
        for name, old, value in zip(
            ("major", "minor", "revision"),
            ("major", "minor", "rev"),
            [*parts, "", ""],
            strict=False,
        ):
            yield f"{NVIDIA}/cuda.driver-version.{name}", sanitise(value)
            yield f"{NVIDIA}/cuda.driver.{old}", sanitise(value)
    if driver.cuda:
        major, _, minor = driver.cuda.partition(".")
        yield f"{NVIDIA}/cuda.runtime-version.full", sanitise(driver.cuda)
        for name, value in (("major", major), ("minor", minor)):
            yield f"{NVIDIA}/cuda.runtime-version.{name}", sanitise(value)
            yield f"{NVIDIA}/cuda.runtime.{name}", sanitise(value)


def _gpus(stock: Stock, hardware: Hardware) -> Iterator[tuple[str, str]]:
    gpus = stock.inventory.topology.gpus
    gpu = _typical(gpus)
    strategy = stock.config.flags.mig_strategy
    if hardware.machine:
        yield f"{NVIDIA}/gpu.machine", sanitise(hardware.machine)
    yield f"{NVIDIA}/gpu.family", _family(gpu.compute)
    major, _, minor = gpu.compute.partition(".")
    yield f"{NVIDIA}/gpu.compute.major", sanitise(major)
    yield f"{NVIDIA}/gpu.compute.minor", sanitise(minor)
    modes = {"graphics" if one.uuid in hardware.graphics else "compute" for one in gpus}
    yield f"{NVIDIA}/gpu.mode", modes.pop() if len(modes) == 1 else "unknown"
    capable = bool(stock.inventory.driver.mig_capable)
    yield f"{NVIDIA}/mig.capable", str(capable).lower()
    if strategy is not MigStrategy.NONE:
        yield f"{NVIDIA}/mig.strategy", str(strategy)
    mps = stock.config.sharing.mps is not None
    yield f"{NVIDIA}/mps.capable", str(mps).lower()
    clique = stock.inventory.topology.clique
    if clique is not None:
        yield f"{NVIDIA}/gpu.clique", sanitise(f"{clique.cluster_uuid}.{clique.clique_id}")
    if strategy is MigStrategy.SINGLE and stock.inventory.mig:
        yield from _single(stock, gpu)
    else:
        yield from _whole(stock, gpu)


def _whole(stock: Stock, gpu: Gpu) -> Iterator[tuple[str, str]]:
    cut = () if stock.config.flags.mig_strategy is MigStrategy.NONE else stock.inventory.mig.keys()
    whole = [one for one in stock.inventory.topology.gpus if one.uuid not in cut]
    offered = {
        device.uuid: resource
        for resource in stock.division.resources.values()
        for device in resource.devices
    }
    resource = offered.get(gpu.uuid) or next(iter(offered.values()), None)
    yield f"{NVIDIA}/gpu.count", str(len(whole))
    yield f"{NVIDIA}/gpu.memory", str(gpu.memory_mib)
    yield from _sharing(stock, f"{NVIDIA}/gpu", gpu.model, resource)


def _single(stock: Stock, gpu: Gpu) -> Iterator[tuple[str, str]]:
    """Yield what stands for the GPUs where each is cut into instances that are all alike."""
    mig = stock.inventory.mig
    uuids = [one.uuid for one in stock.inventory.topology.gpus]
    instances = [one for devices in mig.values() for one in devices]
    if check_single(uuids, mig) or not instances:
        yield f"{NVIDIA}/gpu.count", "0"
        yield f"{NVIDIA}/gpu.replicas", "0"
        yield f"{NVIDIA}/gpu.memory", "0"
        yield f"{NVIDIA}/gpu.product", sanitise(f"{gpu.model}-MIG-INVALID")
        return
    one = instances[0]
    yield f"{NVIDIA}/gpu.count", str(len(instances))
    resource = next((each for each in stock.division.resources.values() if each.devices), None)
    yield from _sharing(stock, f"{NVIDIA}/gpu", f"{gpu.model}-MIG-{one.profile}", resource)
    yield from _attributes(f"{NVIDIA}/gpu", one)


def _parts(stock: Stock) -> Iterator[tuple[str, str]]:
    """Yield what each kind of MIG device has, under the mixed strategy."""
    if stock.config.flags.mig_strategy is not MigStrategy.MIXED:
        return
    models = {gpu.uuid: gpu.model for gpu in stock.inventory.topology.gpus}
    kinds: dict[str, list[tuple[MigDevice, str]]] = {}
    for uuid, devices in stock.inventory.mig.items():
        for one in devices:
            kinds.setdefault(normalise_mig_name(one.profile), []).append((one, models[uuid]))
    for name, found in sorted(kinds.items()):
        prefix = f"{NVIDIA}/{name}"
        one, model = found[0]
        resource = next(
            (
                each
                for each in stock.division.resources.values()
                if any(device.uuid == one.uuid for device in each.devices)
            ),
            None,
        )
        yield f"{prefix}.count", str(len(found))
        yield from _sharing(stock, prefix, f"{model}-MIG-{one.profile}", resource)
        yield from _attributes(prefix, one)


def _sharing(
    stock: Stock, prefix: str, product: str, resource: Resource | None
) -> Iterator[tuple[str, str]]:
    """Yield product, replicas and strategy: one that is shared under its old name says so."""
    sharing = Sharing.NONE if resource is None else resource.sharing
    replicas = max((device.replicas for device in resource.devices), default=1) if resource else 1
    shared = sharing is not Sharing.NONE and not _is_renamed(stock, resource)
    yield f"{prefix}.product", sanitise(product) + ("-SHARED" if shared else "")
    yield f"{prefix}.replicas", str(replicas)
    yield f"{prefix}.sharing-strategy", str(sharing)


def _is_renamed(stock: Stock, resource: Resource | None) -> bool:
    rules = stock.config.sharing.mps or stock.config.sharing.time_slicing
    if rules is None or resource is None:
        return False
    named = {rule.rename for rule in rules.resources}
    return rules.rename_by_default or resource.name in named


def _attributes(prefix: str, one: MigDevice) -> Iterator[tuple[str, str]]:
    yield f"{prefix}.memory", str(one.memory_mib)
    yield f"{prefix}.multiprocessors", str(one.multiprocessors)
    yield f"{prefix}.slices.gi", str(one.gpu_slices)
    yield f"{prefix}.slices.ci", str(one.compute_slices)
    for name in ("copy", "decoder", "encoder", "jpeg", "ofa"):
        yield f"{prefix}.engines.{name}", str(getattr(one.engines, name))


def _typical(gpus: tuple[Gpu, ...]) -> Gpu:
    """Return the first GPU of the most frequent model: on a mixed node the label does not flip."""
    models = Counter(gpu.model for gpu in gpus)
    most = max(models.values())
    return min(
        (gpu for gpu in gpus if models[gpu.model] == most), key=lambda gpu: (gpu.model, gpu.index)
    )


def _family(compute: str) -> str:
    version = _version(compute)
    return next((name for least, name in _FAMILIES if version >= least), "undefined")


def _version(compute: str) -> tuple[int, int]:
    major, _, minor = compute.partition(".")
    return (int(major or 0), int(minor or 0)) if (major + minor).isdecimal() else (0, 0)


def _links(topology: NodeTopology) -> Iterator[tuple[str, str]]:
    """Yield how GPUs are linked and how they lie on NUMA nodes."""
    groups = _groups(topology)
    if max(groups) > 1:
        most = max(map(max, topology.nvlinks))
        computes = [_version(gpu.compute)[0] for gpu in topology.gpus]
        generation = next((gen for major, gen in _NVLINK_GENERATIONS if min(computes) >= major), 0)
        if generation:
            yield f"{OURS}/nvlink.generation", str(generation)
        yield f"{OURS}/nvlink.group-size", str(max(groups))
        yield f"{OURS}/nvlink.links", str(most)
        yield f"{OURS}/nvlink.switch", str(any(group >= 0 for group in topology.switch)).lower()
    generations = {gpu.pcie_gen for gpu in topology.gpus if gpu.pcie_gen}
    if generations:
        yield f"{OURS}/pcie.generation", str(min(generations))
    nodes = Counter(gpu.numa_node for gpu in topology.gpus if gpu.numa_node is not None)
    if nodes:
        yield f"{OURS}/numa.nodes", str(len(nodes))
        yield f"{OURS}/numa.gpus-per-node", str(max(nodes.values()))


def _groups(topology: NodeTopology) -> list[int]:
    """Return the sizes of the groups of GPUs that NVLinks join, over others too."""
    left = set(range(len(topology.gpus)))
    sizes: list[int] = []
    while left:
        group, edge = set(), {left.pop()}
        while edge:
            at = edge.pop()
            group.add(at)
            near = {other for other in left if topology.nvlinks[at][other]}
            left -= near
            edge |= near
        sizes.append(len(group))
    return sizes


def render(labels: Mapping[str, str]) -> str:
    """Return the feature file: a label a line."""
    return "".join(f"{name}={value}\n" for name, value in sorted(labels.items()))
