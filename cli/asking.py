"""How the command line reaches the explain API: by its address, or through a port of its pod."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import typer

SERVER = typer.Option(
    None, envvar="GPUTOPO_SERVER", help="Address of the explain API; else kubectl finds it."
)
TOKEN_FILE = typer.Option(
    None, envvar="GPUTOPO_TOKEN_FILE", help="A file with the bearer token that it wants."
)
NAMESPACE = typer.Option("gputopo-system", help="Where the scheduler runs.")
KUBECONFIG = typer.Option(None, help="The kubeconfig for kubectl.")
JSON = typer.Option(False, "--json", help="Print one JSON value and nothing else.")

PORT: Final = 8887
"""Where the API listens in the scheduler's pod."""

SECONDS: Final = 15.0
LEASE: Final = "gputopo-scheduler"
ACCOUNT: Final = "gputopo-scheduler"
AUDIENCE: Final = "gputopo-explain"
_PODS: Final = "app.kubernetes.io/name in (gputopo-scheduler,gputopo-extender)"
_FORWARDING = re.compile(r"Forwarding from (127\.0\.0\.1:\d+)")


class AskError(Exception):
    """No answer, or an answer that is an error; `code` is how the command ends."""

    def __init__(self, problem: str, code: int) -> None:
        super().__init__(problem)
        self.code = code


class Api:
    """The API at an address. `make_token` is asked when it wants a token and there is none."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        make_token: Callable[[], str | None] = lambda: None,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise AskError(f"--server {url}: wants http:// or https://", 2)
        self._url = url.rstrip("/")
        self._token = token
        self._make_token = make_token

    def get(self, *parts: str, **query: object) -> Any:
        """Ask for a path made of these parts. Raises AskError."""
        path = "/".join(urllib.parse.quote(part, safe="") for part in parts)
        return self._ask(f"{path}?{urllib.parse.urlencode(query)}" if query else path)

    def post(self, path: str, body: bytes, **query: object) -> Any:
        """Ask with a body. Raises AskError."""
        return self._ask(f"{path}?{urllib.parse.urlencode(query)}", body)

    def _ask(self, path: str, body: bytes | None = None) -> Any:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/yaml"
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        url = f"{self._url}/{path}"
        request = urllib.request.Request(url, body, headers)  # noqa: S310 -- http or https, see above
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310 -- as above
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code == HTTPStatus.UNAUTHORIZED and self._token is None:
                self._token = self._make_token()
                if self._token is not None:
                    return self._ask(path, body)
            raise _refused(error, url) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise AskError(f"{self._url}: {reason}", 1) from None


def _refused(error: urllib.error.HTTPError, url: str) -> AskError:
    try:
        told = json.load(error)
        text = f"{told['place']}: {told['error']}" if told.get("place") else str(told["error"])
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        return AskError(f"{url}: HTTP {error.code} and no word why", 1)
    if error.code == HTTPStatus.UNAUTHORIZED:
        text = f"{text.partition(';')[0]}; wanted: --token-file"
    return AskError(text, 2 if error.code in {400, 404, 410} else 1)


@contextlib.contextmanager
def reach(
    server: str | None, token_file: Path | None, namespace: str, kubeconfig: str | None
) -> Iterator[Api]:
    """Lend the API; what goes wrong with it becomes one line on standard error and an exit."""
    try:
        token = token_file.read_text().strip() if token_file is not None else None
        if server is not None:
            yield Api(server, token)
        else:
            kubectl = _Kubectl(namespace, kubeconfig)
            with _forwarded(kubectl) as address:
                yield Api(f"http://{address}", token, lambda: _make_token(kubectl))
    except AskError as error:
        print(f"gputopo: {' '.join(str(error).split())}", file=sys.stderr)
        raise typer.Exit(error.code) from None
    except OSError as error:
        print(f"gputopo: {error}", file=sys.stderr)
        raise typer.Exit(2) from None


class _Kubectl:
    """kubectl, which knows every way to log in to a cluster."""

    def __init__(self, namespace: str, kubeconfig: str | None) -> None:
        program = shutil.which("kubectl")
        if program is None:
            raise AskError("neither --server is given nor is kubectl to be found", 2)
        self._words = [program, *(["--kubeconfig", kubeconfig] if kubeconfig else [])]
        self._words += ["--namespace", namespace]
        self.namespace = namespace

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command that goes on."""
        return subprocess.Popen(  # noqa: S603 -- the user's own kubectl
            [*self._words, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def say(self, *words: str) -> str | None:
        """Return what a command says, None if it fails. Raises AskError when it hangs."""
        try:
            done = subprocess.run(  # noqa: S603 -- as above
                [*self._words, *words], capture_output=True, text=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise AskError(f"kubectl does not answer within {SECONDS:g} s", 1) from None
        return done.stdout if done.returncode == 0 else None


def _scheduler_pod(kubectl: _Kubectl) -> str:
    """Return the pod that decides: whose name begins the holder of the Lease.

    Without the right to read the Lease it is the first that runs; a replica that does not decide
    asks the one that does.
    """
    listed = kubectl.say(
        *("get", "pods", "--selector", _PODS, "--field-selector", "status.phase=Running"),
        *("--output", r"jsonpath={range .items[*]}{.metadata.name}{'\n'}{end}"),
    )
    if listed is None:
        raise AskError(
            f"kubectl may not list pods in {kubectl.namespace}, or does not reach the cluster", 1
        )
    names = listed.split()
    if not names:
        raise AskError(f"no scheduler of gputopo runs in {kubectl.namespace} (--namespace)", 1)
    holder = kubectl.say("get", "lease", LEASE, "--output", "jsonpath={.spec.holderIdentity}")
    leader = (holder or "").rpartition("_")[0]
    return leader if leader in names else names[0]


def _make_token(kubectl: _Kubectl) -> str | None:
    """Return a token of the scheduler's account for its API alone; None without the right to it.

    It is wanted where the loopback is not trusted: in the host's network it is everybody's there.
    """
    said = kubectl.say("create", "token", ACCOUNT, "--audience", AUDIENCE, "--duration", "10m")
    return said.strip() if said else None


@contextlib.contextmanager
def _forwarded(kubectl: _Kubectl) -> Iterator[str]:
    """Open the API's port here; needs the right to create pods/portforward."""
    pod = _scheduler_pod(kubectl)
    process = kubectl.start("port-forward", f"pod/{pod}", f":{PORT}", "--address", "127.0.0.1")
    # It waits for its end with our pipe; a port that never comes must not hold us.
    timer = threading.Timer(SECONDS, process.kill)
    timer.start()
    try:
        for line in process.stdout or ():
            match = _FORWARDING.match(line)
            if match is not None:
                timer.cancel()
                yield match[1]
                return
        said = process.stderr.read() if process.stderr is not None else ""
        reason = said.strip() or f"no port within {SECONDS:g} s"
        raise AskError(f"kubectl port-forward pod/{pod}: {reason}", 1)
    finally:
        timer.cancel()
        process.terminate()
        process.communicate()


def read_input(path: str) -> bytes:
    """Read a file, or standard input for ``-``."""
    return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
