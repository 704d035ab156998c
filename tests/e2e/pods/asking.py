"""How a bundle in pods is asked why: by port-forward, in the pods' network, by our command line."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import msgspec

from tests.e2e import components
from tests.e2e.pods.bundle import NAMESPACE, SCHEDULER, Bundle
from tests.waiting import wait_until

PORT: Final = 8887
AUDIENCE: Final = "gputopo-explain"

_FORWARDING: Final = re.compile(r"Forwarding from (127\.0\.0\.1:\d+)")


class Answer(msgspec.Struct, frozen=True):
    """What was answered; `by` is the replica that decides, if another one was asked."""

    status: int
    by: str | None
    told: Any


def ask(url: str, *, token: str | None = None) -> Answer:
    """Ask for JSON."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    request = Request(url, headers=headers)  # noqa: S310 -- our own address
    try:
        with urlopen(request, timeout=30) as answer:  # noqa: S310 -- as above
            return Answer(answer.status, answer.headers["X-Gputopo-Answered-By"], json.load(answer))
    except HTTPError as error:
        with error:
            return Answer(error.code, error.headers["X-Gputopo-Answered-By"], json.load(error))


@contextlib.contextmanager
def forwarded(bundle: Bundle, pod: dict[str, Any]) -> Iterator[str]:
    """Open the API's port of a pod by kubectl; lend its address."""
    command = [
        str(components.binary_folder() / "kubectl"),
        f"--kubeconfig={bundle.cluster.plane.kubeconfig()}",
        *("port-forward", "-n", NAMESPACE, f"pod/{pod['metadata']['name']}", f":{PORT}"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            match = _FORWARDING.match(process.stdout.readline())
            assert match is not None, "kubectl forwards no port"
            yield f"http://{match[1]}"
        finally:
            process.terminate()


def replicas(bundle: Bundle) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the pod that decides, and the other one."""
    leader = bundle.leading_pod()
    name = leader["metadata"]["name"]
    (standby,) = (one for one in bundle.daemons(SCHEDULER) if one["metadata"]["name"] != name)
    return leader, standby


def direct(pod: dict[str, Any]) -> str:
    """Return the API's address in the pods' network."""
    return f"http://{pod['status']['podIP']}:{PORT}"


def run_cli(*words: str, kubeconfig: Path) -> subprocess.CompletedProcess[str]:
    """Run our command line where kubectl is in the path, as a user would."""
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *words, "--kubeconfig", str(kubeconfig)],
        capture_output=True,
        text=True,
        check=False,
        env={
            "PATH": f"{components.binary_folder()}:{os.environ['PATH']}",
            "HOME": str(kubeconfig.parent),
            "COLUMNS": "200",
        },
    )


def pass_the_lead_on(bundle: Bundle) -> None:
    """Hold the leader's kube-scheduler until the other one leads; its extender runs on.

    One that was killed might be the first to take the Lease, as soon as it is started again.
    """
    before, pod = bundle.leader(), bundle.leading_pod()
    bundle.signal("SIGSTOP", pod, "kube-scheduler")
    try:
        wait_until(lambda: _led_by_another(bundle, before), 60, "another scheduler to lead")
    finally:
        # It finds the Lease lost, and ends; kubelet starts it again.
        bundle.signal("SIGCONT", pod, "kube-scheduler")
    container = "kube-scheduler"
    name, ended = pod["metadata"]["name"], bundle.restarts(pod, container)
    wait_until(
        lambda: any(
            bundle.restarts(one, container) > ended
            for one in bundle.daemons(SCHEDULER)
            if one["metadata"]["name"] == name
        ),
        60,
        "the scheduler that led to end",
    )
    bundle.await_ready()


def _led_by_another(bundle: Bundle, before: str) -> bool:
    return bundle.leader().partition("_")[0] not in {"", before.partition("_")[0]}
