"""`gputopo demo`: a whole cluster on this machine, real daemons, real sockets, a verdict."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import typer

from cli.usage import print_json
from topology.catalogue import load_machine

if TYPE_CHECKING:
    from cli.demo_view import View
    from embedded.arrivals import Arrivals
    from embedded.cluster import Cluster, NodeSpec
    from embedded.fault_script import ScriptedFault
    from embedded.faults import Fault
    from embedded.picture import Picture
    from embedded.reports import LeftOut, Report

# Mesh, NVSwitch, bridges, PCIe, 16 GPUs, a tray, a virtual machine: one of each.
DEFAULT_MACHINES: Final = (
    "dgx1-v100",
    "dgx-a100-8x",
    "hgx-h100-8x-ib",
    "dgx2-16x-v100",
    "a40-8x-bridges",
    "a100-4x-pcie-bridges",
    "l40s-8x",
    "ibm-ac922-4x-v100",
    "hgx-b200-8x",
    "gb200-nvl72-tray-4x",
    "azure-nc96ads-a100-v4-4x",
    "pcie-8x-two-switches-nic-one-socket",
)
DEFAULT_PODS: Final = "60"
_MOST_NODES: Final = 200
_MOST_PODS: Final = 20_000
# Imports cost a second of CPU a node; on a slow machine shared with others, several.
_STARTUP_SECONDS: Final = 90.0
_STARTUP_SECONDS_A_NODE: Final = 6.0
# How long pods go on arriving after the last fault: they prove that it is over.
_AFTER_FAULTS: Final = 8.0


def demo(
    *,
    machine: list[str] = typer.Option(
        list(DEFAULT_MACHINES), metavar="FILE-or-NAME", help="A machine; may be given repeatedly."
    ),
    nodes: int | None = typer.Option(None, help="How many nodes; goes round the machines."),
    pods: str = typer.Option(
        DEFAULT_PODS,
        metavar="N-or-CSV",
        help="How many synthetic pods, or a pod list of the openb format.",
    ),
    seed: int = typer.Option(0, help="Of the synthetic pods and of drawn lifetimes."),
    json: bool = typer.Option(False, "--json", help="Print one JSON object and nothing else."),
    fault: list[str] = typer.Option(
        [],
        metavar="KIND[:NODE]@SECONDS[+LASTING]",
        help="Break something while pods are placed; 'all' is one of each. May be repeated. Kinds: "
        "plugin-killed, plugin-socket-deleted, kubelet-restarted, kubelet-socket-recreated, "
        "extender-killed, apiserver-away, gpu-lost, gpu-xid.",
    ),
    fault_script: str | None = typer.Option(
        None,
        metavar="FILE-or-NAME",
        help="A script of GPU faults: entries {at, node, kind, ...}; 'story' is one that ships.",
    ),
    serve: bool = typer.Option(False, "--serve", help="Keep the cluster up until Ctrl-C."),
    keep_logs: Path | None = typer.Option(None, help="Write the daemons' logs to this folder."),
) -> int:
    """Start an embedded cluster, place pods on it, and check what each container saw.

    Exits 0 only if every container saw exactly the set in its pod's annotation and no GPU was
    given twice.

    A pod list is read from its start: whole-GPU and CPU-only pods arrive as the cluster takes them
    and end after their lifetime, compressed to seconds (at most 8, or an eighth of the number of
    GPUs). It stops once the cluster has been full for 10 s, after 75 s, or with the list.
    """
    # grpc's core would write its connections' ends over the table; it reads this when loaded.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from embedded.errors import ClusterError, EmbeddedError
    from topology.errors import TopologyError

    try:
        specs = _name_nodes(machine, nodes)
        faults = _read_faults(fault, specs)
        script = _read_script(fault_script, specs)
        last = max((one.at for one in script), default=None)
        arrivals, left_out = _read_pods(pods, specs, seed, faults, last)
        if keep_logs is not None:
            _make_folder(keep_logs)
    except (EmbeddedError, TopologyError, OSError, ValueError) as error:
        print(f"gputopo: {' '.join(str(error).split())}", file=sys.stderr)
        raise typer.Exit(2) from None
    plan = _Plan(specs, arrivals, left_out, faults, script, seed)
    try:
        with _signals() as stopping:
            return _run(plan, stopping, json=json, serve=serve, logs=keep_logs)
    except ClusterError as error:
        print(f"gputopo: {error}", file=sys.stderr)
        return 1


class _Plan(NamedTuple):
    """What is to be run."""

    specs: Sequence[NodeSpec]
    arrivals: Arrivals
    left_out: LeftOut
    faults: Sequence[Fault]
    script: Sequence[ScriptedFault]
    seed: int


def _run(
    plan: _Plan, stopping: threading.Event, *, json: bool, serve: bool, logs: Path | None
) -> int:
    from embedded.cluster import Cluster
    from embedded.session import Session

    began = time.monotonic()
    mig = frozenset(one.node for one in plan.script if one.entry["kind"] == "mig")
    cluster = Cluster(plan.specs, seed=plan.seed, logs=logs, mig_nodes=mig)
    with _logging_to(cluster.logs / "cluster.log"):
        try:
            with _choose_view(json=json) as view:
                view.say("the cluster starts")
                cluster.start(
                    _STARTUP_SECONDS + _STARTUP_SECONDS_A_NODE * len(plan.specs),
                    view.say,
                    stopping,
                )
                startup = time.monotonic() - began
                session = Session(
                    cluster,
                    plan.arrivals,
                    plan.faults,
                    left_out=plan.left_out,
                    stopping=stopping,
                    look=view.look,
                    judge=view.judges,
                    script=plan.script,
                )
                session.run(go_on=serve)
                report = session.report(startup, time.monotonic() - began)
                if serve and not stopping.is_set():
                    _say_where(cluster, view)
                    session.keep_showing("serving until Ctrl-C")
                    report = session.report(startup, time.monotonic() - began)
                last = session.picture("at the end", judge=True)
                example = _draw_example(last, cluster)
        finally:
            cluster.stop()
    if json:
        print_json(report.to_json())
    else:
        _print_summary(report, example, None if view.judges else last)
    return 0 if report.well else 1


def _name_nodes(machines: Sequence[str], count: int | None) -> list[NodeSpec]:
    """Load the machines and go round them; raises ValueError for an impossible count."""
    from embedded.cluster import NodeSpec

    if count is not None and not 1 <= count <= _MOST_NODES:
        raise ValueError(f"--nodes {count}: 1 to {_MOST_NODES} nodes are possible")
    loaded = [(reference, load_machine(reference)) for reference in machines]
    total = len(loaded) if count is None else count
    width = max(2, len(str(total)))
    return [
        NodeSpec(f"n{number + 1:0{width}}", loaded[number % len(loaded)][1], reference)
        for number in range(total)
        for reference in [_absolute(loaded[number % len(loaded)][0])]
    ]


def _make_folder(path: Path) -> None:
    """Make the folder of ``--keep-logs``; raises ValueError if it cannot be written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / "cluster.log").open("a").close()
    except OSError as error:
        raise ValueError(f"--keep-logs {path}: {error.strerror}") from error


def _absolute(reference: str) -> str:
    return str(Path(reference).resolve()) if Path(reference).exists() else reference


def _read_faults(texts: Sequence[str], specs: Sequence[NodeSpec]) -> tuple[Fault, ...]:
    from embedded.faults import parse_faults

    return parse_faults(texts, [spec.name for spec in specs])


def _read_script(reference: str | None, specs: Sequence[NodeSpec]) -> tuple[ScriptedFault, ...]:
    from embedded.fault_script import find_script, read_script

    if reference is None:
        return ()
    return read_script(find_script(reference), {spec.name: spec.machine for spec in specs})


def _read_pods(
    text: str,
    specs: Sequence[NodeSpec],
    seed: int,
    faults: Sequence[Fault],
    last_scripted: float | None,
) -> tuple[Arrivals, LeftOut]:
    """Read ``--pods``: a number, else a file. Raises WorkloadError and ValueError."""
    from embedded.arrivals import CountedArrivals, ListedArrivals
    from embedded.reports import LeftOut
    from embedded.trace import Lifetimes, read_trace
    from embedded.workload import MachineFacts, synthetic_pods
    from mock_nvml.products import find_product

    ends = [fault.end for fault in faults]
    if last_scripted is not None:
        ends.append(last_scripted)
    until = max(ends, default=-_AFTER_FAULTS) + _AFTER_FAULTS
    machines = {spec.machine.name: spec.machine for spec in specs}.values()
    if text.lstrip("+-").isdigit():
        if not 0 <= int(text) <= _MOST_PODS:
            raise ValueError(f"--pods {text}: 0 to {_MOST_PODS} pods are possible")
        facts = [
            MachineFacts(
                find_product(each.model).name,
                len(each.gpus),
                len(each.gpus)
                if each.nvlink.nvswitch
                else 2 * any(any(row) for row in each.nvlinks),
            )
            for each in machines
        ]
        return CountedArrivals(synthetic_pods(int(text), seed, facts), until), LeftOut()
    path = Path(text)
    if not path.exists():
        raise ValueError(f"--pods {text}: neither a number nor a file")
    gpus = sum(len(spec.machine.gpus) for spec in specs)
    trace = read_trace(
        path,
        [find_product(each.model).name for each in machines],
        seed=seed,
        lifetimes=Lifetimes(1.0, max(8.0, gpus / 8)),
    )
    window = max(8, len(specs))
    return (
        ListedArrivals(trace.pods, window, until),
        LeftOut(shared=trace.shared, gpu_spec=trace.unknown_model),
    )


@contextlib.contextmanager
def _signals() -> Iterator[threading.Event]:
    """Lend an event that SIGINT and SIGTERM set; a second signal ends us at once."""
    stopping = threading.Event()

    def stop(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        # An Event's set() may deadlock inside a handler that interrupts its wait().
        threading.Thread(target=stopping.set, daemon=True).start()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Send this process's log (API server, kubelets, scheduler) to a file beside the daemons'."""
    from runtime import logs

    path.parent.mkdir(parents=True, exist_ok=True)
    logs.setup("info", json=True)
    with path.open("a") as file:
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.setStream(file)
        try:
            yield
        finally:
            logging.getLogger().handlers.clear()


def _choose_view(*, json: bool) -> View:
    from rich.console import Console

    from cli.demo_view import LiveView, PlainView

    # With --json standard output belongs to the answer; the table goes where a person looks.
    console = Console(stderr=json)
    if console.is_terminal:
        return LiveView(console)
    return PlainView(quiet=json)


def _say_where(cluster: Cluster, view: View) -> None:
    """Say where everything can be reached, also where metrics, /healthz and /readyz answer."""
    view.announce(
        f"API server {cluster.api.url}, kubeconfig {cluster.kubeconfig}, "
        f"extender {cluster.extender_url}, why pods are where they are {cluster.explain_url}, "
        f"logs {cluster.logs}"
    )
    places = {"extender": cluster.extender_ops_url} | {
        name: node.ops_url for name, node in cluster.nodes.items()
    }
    view.announce(f"metrics and health: {', '.join(f'{n} {url}' for n, url in places.items())}")
    view.announce(f"dashboard: {cluster.explain_url}/")


def _draw_example(picture: Picture, cluster: Cluster) -> str:
    """Draw the node that shows most: which GPUs, which links, which pod."""
    from embedded.picture import pick_example
    from topology.drawing import draw_node

    found = {row.name: cluster.observation.topology_of(row.name) for row in picture.rows}
    topologies = {name: topology for name, topology in found.items() if topology is not None}
    row = pick_example(picture.rows, topologies)
    if row is None:
        return ""
    holders = {cell.uuid: cell.holder for cell in row.cells if cell.holder}
    return f"{row.name}, {row.machine}\n{draw_node(topologies[row.name], holders)}"


def _print_summary(report: Report, example: str, picture: Picture | None) -> None:
    """Print what the run came to; `picture` is the table, where no live one was shown."""
    from rich.console import Console

    from cli.demo_view import draw_picture, summarise

    if picture is not None:
        # As wide as it needs to be: a pipe has no width of its own.
        Console(width=200).print(draw_picture(picture))
    if example:
        print(f"\n{example}")
    print(f"\n{summarise(report)}")
