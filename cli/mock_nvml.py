"""`gputopo mock-nvml`: a machine behind a real libnvidia-ml.so.1, for processes of any language."""

from __future__ import annotations

import signal
from pathlib import Path

import typer

from cli.usage import one_line_errors


def mock_nvml(
    machine: str = typer.Argument(
        metavar="FILE-or-NAME", help="A machine description, or the name of a shipped one."
    ),
    folder: Path = typer.Argument(
        metavar="DIR", help="Gets the library, and the machine's sys and proc."
    ),
    *,
    seed: str = typer.Option("node", help="The node's name: it makes the GPUs' uuids."),
    faults: Path | None = typer.Option(
        None, help="A script of faults; re-read when it changes, so it is a control file too."
    ),
    build_only: bool = typer.Option(False, "--build-only", help="Make the files and end."),
) -> None:
    """Compile the library into DIR and answer for it until a signal.

    Programs that are started with LD_LIBRARY_PATH=DIR see the machine, and all of them see the
    same faults.
    """
    from mock_nvml import MockError, MockNvml, write_proc, write_sysfs
    from mock_nvml.native import SOCKET, NativeServer, build
    from topology.catalogue import load_machine

    with one_line_errors(MockError):
        described = load_machine(machine)
        mock = MockNvml(described, seed=seed)
        library = build(folder)
        write_sysfs(described, folder / "sys", seed=seed)
        write_proc(described, folder / "proc")
        if build_only:
            print(library)
            return
        # Blocked before any thread starts, so that none of them takes it.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        player = None if faults is None else mock.play(faults)
    with NativeServer(mock.state, folder / SOCKET):
        print(f"{described.name}: LD_LIBRARY_PATH={folder} shows it to any program", flush=True)
        signal.sigwait((signal.SIGINT, signal.SIGTERM))
    if player is not None:
        player.stop()
