"""etcd, kube-apiserver, and as much of the rest of the control plane as is asked for."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import ssl
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import yaml

from embedded.ports import free_port
from tests.e2e.components import binary_folder
from tests.e2e.errors import StartError
from tests.e2e.process import Process
from tests.waiting import wait_until

ADMIN: Final = "admin"
SCHEDULER: Final = "system:kube-scheduler"
CONTROLLERS: Final = "system:kube-controller-manager"
_SERVICES: Final = "10.96.0.0/16"
# The controllers that the bundle needs, and those that make namespaces and accounts usable. The
# node life cycle is left out on purpose: nodes that a test holds still would lose their pods.
_CONTROLLERS: Final = (
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "root-ca-certificate-publisher-controller",
    "daemonset-controller",
    "deployment-controller",
    "replicaset-controller",
    "job-controller",
    "namespace-controller",
    "garbage-collector-controller",
    "pod-garbage-collector-controller",
    "disruption-controller",
    "validatingadmissionpolicy-status-controller",
    "clusterrole-aggregation-controller",
    "taint-eviction-controller",
)


class ControlPlane:
    """A control plane with its data in `folder`, which has to exist.

    `nodes` are the names that kubelets will log in with. `service_address` makes the API server
    listen on all addresses at port 443, and so at this one: pods find it there.
    """

    def __init__(
        self,
        folder: Path,
        *,
        nodes: Sequence[str] = (),
        controllers: bool = False,
        scheduler: bool = False,
        service_address: str | None = None,
    ) -> None:
        self._folder = folder
        self._binaries = binary_folder()
        self.port = 443 if service_address else free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self._etcd_port = free_port()
        self._tokens = {ADMIN: ("system:masters",), SCHEDULER: (), CONTROLLERS: ()} | {
            f"system:node:{name}": ("system:nodes",) for name in nodes
        }
        self.etcd = self._make_etcd()
        self.api_server = self._make_api_server("0.0.0.0" if service_address else "127.0.0.1")
        others = []
        if controllers:
            others.append(self._make_controllers())
        if scheduler:
            others.append(self._make_scheduler())
        self._others = tuple(others)

    def start(self) -> None:
        """Start everything. Raises StartError with the end of a log; then nothing is left."""
        try:
            self._write_keys()
            self._start_etcd()
            self.start_api_server()
            for process in self._others:
                process.start()
            self._make_usable()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End everything; the folder stays."""
        for process in (*self._others, self.api_server, self.etcd):
            process.stop(signal.SIGTERM if process is self.etcd else signal.SIGKILL)
        with contextlib.suppress(OSError):
            subprocess.run(["umount", str(self._data)], check=False, capture_output=True)

    def start_api_server(self) -> None:
        """Start the API server, for the first time or again, and wait until it is ready."""
        self.api_server.start()
        self.api_server.wait_for(self._is_ready, 90)

    def compact(self) -> None:
        """Make every resource version so far too old to watch from (410 Gone).

        etcd forgets the versions; the API server's own watch cache does with a restart.
        """
        self.api_server.kill()
        header = self._ask_etcd("maintenance/status", {})["header"]
        self._ask_etcd("kv/compaction", {"revision": header["revision"], "physical": True})
        self.start_api_server()

    def kubeconfig(self, user: str = ADMIN, *, port: int | None = None) -> Path:
        """Return a kubeconfig of a user; `port` leads through a gate in place of the server."""
        return self.write_kubeconfig(user, user, port=port)

    def write_kubeconfig(self, name: str, token: str, *, port: int | None = None) -> Path:
        """Return a kubeconfig for a token, such as one of a service account."""
        path = self._folder / f"{name.replace(':', '-')}-{port or self.port}.kubeconfig"
        server = f"https://127.0.0.1:{port or self.port}"
        certificate = str(self._folder / "pki" / "apiserver.crt")
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "e2e",
            "clusters": [
                {
                    "name": "e2e",
                    "cluster": {"server": server, "certificate-authority": certificate},
                }
            ],
            "users": [{"name": "e2e", "user": {"token": token}}],
            "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": "e2e"}}],
        }
        path.write_text(yaml.safe_dump(content))
        return path

    def start_proxy(self, name: str, token: str) -> tuple[Process, int]:
        """Start a way to the API server without TLS, for whom the token is; return its port."""
        port = free_port()
        kubeconfig = self.write_kubeconfig(name, token)
        proxy = self._process(
            self._binaries / "kubectl",
            {"kubeconfig": str(kubeconfig), "port": str(port)},
            verb="proxy",
        )
        proxy.start()
        proxy.wait_for(lambda: answers(f"http://127.0.0.1:{port}/version"), 20)
        return proxy, port

    def service_account(self, namespace: str, name: str, *, node: str | None = None) -> str:
        """Return a token of a service account, bound to a node if one is named."""
        bound = ("--bound-object-kind=Node", f"--bound-object-name={node}") if node else ()
        return self.kubectl("create", "token", name, "-n", namespace, *bound).strip()

    def kubectl(self, *arguments: str, user: str = ADMIN, text: str | None = None) -> str:
        """Run kubectl; return what it printed. Raises StartError with what it complained of."""
        done = self.try_kubectl(*arguments, kubeconfig=self.kubeconfig(user), text=text)
        if done.returncode:
            raise StartError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def try_kubectl(
        self, *arguments: str, kubeconfig: Path, text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as somebody, whatever comes of it."""
        return subprocess.run(
            [str(self._binaries / "kubectl"), f"--kubeconfig={kubeconfig}", *arguments],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            env={"HOME": str(self._folder), "PATH": os.environ["PATH"]},
        )

    def ask(self, path: str, *, method: str = "GET", body: Any = None) -> Any:
        """Ask the API server as an administrator, and return the decoded answer."""
        request = Request(  # noqa: S310 -- our own server's address
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"Authorization": f"Bearer {ADMIN}", "Content-Type": "application/json"},
        )
        with urlopen(request, timeout=10, context=_unverified()) as answer:  # noqa: S310 -- as above
            return json.loads(answer.read())

    @property
    def kubelet_client(self) -> Path:
        """The certificate by which kubelets know the API server, which is its own authority."""
        return self._folder / "kubelet-client.crt"

    @property
    def _data(self) -> Path:
        return self._folder / "etcd"

    def _make_etcd(self) -> Process:
        client, peer = (f"http://127.0.0.1:{port}" for port in (self._etcd_port, free_port()))
        return self._process(
            shutil.which("etcd") or "/usr/bin/etcd",
            {
                "name": "e2e",
                "data-dir": str(self._data / "data"),
                "listen-client-urls": client,
                "advertise-client-urls": client,
                "listen-peer-urls": peer,
                "initial-advertise-peer-urls": peer,
                "initial-cluster": f"e2e={peer}",
                "log-level": "error",
            },
        )

    def _make_api_server(self, address: str) -> Process:
        key = self._folder / "service-accounts"
        return self._process(
            self._binaries / "kube-apiserver",
            {
                "etcd-servers": f"http://127.0.0.1:{self._etcd_port}",
                "secure-port": str(self.port),
                "bind-address": address,
                "advertise-address": "127.0.0.1",
                "cert-dir": str(self._folder / "pki"),
                "service-account-issuer": "https://kubernetes.default.svc",
                "service-account-key-file": f"{key}.pub",
                "service-account-signing-key-file": f"{key}.key",
                "service-cluster-ip-range": _SERVICES,
                "token-auth-file": str(self._folder / "tokens.csv"),
                "authorization-mode": "Node,RBAC",
                "enable-admission-plugins": "NodeRestriction",
                # It taints new nodes, and the controller that takes that away is not here.
                "disable-admission-plugins": "TaintNodesByCondition",
                # The address in it would be the loopback's, which is refused.
                "endpoint-reconciler-type": "none",
                # Cases watch how often things are asked, so nobody is to be slowed down.
                "max-requests-inflight": "2000",
                "kubelet-preferred-address-types": "InternalIP,Hostname",
                # With this the API server tells extensions, second schedulers among them, by whom
                # it lets others be known.
                "client-ca-file": str(self.kubelet_client),
                "kubelet-client-certificate": str(self.kubelet_client),
                "kubelet-client-key": str(self.kubelet_client.with_suffix(".key")),
                "v": "1",
            },
        )

    def _make_controllers(self) -> Process:
        return self._process(
            self._binaries / "kube-controller-manager",
            {
                "kubeconfig": str(self.kubeconfig_path(CONTROLLERS)),
                "controllers": ",".join(_CONTROLLERS),
                "service-account-private-key-file": str(self._folder / "service-accounts.key"),
                "root-ca-file": str(self._folder / "pki" / "apiserver.crt"),
                "use-service-account-credentials": "true",
                "leader-elect": "false",
                "secure-port": "0",
            },
        )

    def _make_scheduler(self) -> Process:
        return self._process(
            self._binaries / "kube-scheduler",
            {
                "kubeconfig": str(self.kubeconfig_path(SCHEDULER)),
                "leader-elect": "false",
                "secure-port": "0",
            },
        )

    def kubeconfig_path(self, user: str) -> Path:
        """Return where the kubeconfig of a user lies, written now: the port is known from here."""
        return self.kubeconfig(user)

    def _process(
        self, binary: str | Path, options: Mapping[str, str], *, verb: str | None = None
    ) -> Process:
        name = verb or Path(binary).name
        told = [f"--{key}={value}" for key, value in options.items()]
        command = [str(binary), *((verb,) if verb else ()), *told]
        return Process(name, command, self._folder / f"{name}.log")

    def _write_keys(self) -> None:
        key = self._folder / "service-accounts"
        openssl = shutil.which("openssl") or "openssl"
        for command in (
            ("genrsa", "-out", f"{key}.key", "2048"),
            ("rsa", "-in", f"{key}.key", "-pubout", "-out", f"{key}.pub"),
            (
                *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
                *("-subj", "/O=system:masters/CN=kube-apiserver"),
                *("-keyout", str(self.kubelet_client.with_suffix(".key"))),
                *("-out", str(self.kubelet_client)),
            ),
        ):
            subprocess.run([openssl, *command], check=True, capture_output=True)
        rows = []
        for user, groups in self._tokens.items():
            rows.append(f'{user},{user},{user},"{",".join(groups)}"')
        (self._folder / "tokens.csv").write_text("\n".join(rows) + "\n")

    def _start_etcd(self) -> None:
        # In memory: a disk's fsync would be most of what the cases wait for.
        self._data.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(self._data)], check=True)
        self.etcd.start()
        health = f"http://127.0.0.1:{self._etcd_port}/health"
        self.etcd.wait_for(lambda: answers(health), 30)

    def _ask_etcd(self, verb: str, body: Any) -> Any:
        """Ask etcd through its JSON gateway, which numbers as strings."""
        url = f"http://127.0.0.1:{self._etcd_port}/v3/{verb}"
        with urlopen(url, json.dumps(body).encode(), timeout=10) as answer:
            return json.loads(answer.read())

    def _is_ready(self) -> bool:
        request = Request(  # noqa: S310 -- our own server's address
            f"{self.url}/readyz", headers={"Authorization": f"Bearer {ADMIN}"}
        )
        try:
            with urlopen(request, timeout=2, context=_unverified()) as answer:  # noqa: S310 -- ours
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def _make_usable(self) -> None:
        """Let pods be made in the namespace default, which needs its service account."""
        wait_until(lambda: self._has("/api/v1/namespaces/default"), 30, "the namespace default")
        if not self._others:
            with contextlib.suppress(HTTPError):
                self.make_account("default")

    def await_node(self, name: str) -> None:
        """Wait until a node is there and ready."""

        def is_ready() -> bool:
            if not self._has(f"/api/v1/nodes/{name}"):
                return False
            conditions = self.ask(f"/api/v1/nodes/{name}")["status"].get("conditions", [])
            return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

        wait_until(is_ready, 60, f"node {name} to be ready")

    def make_account(self, namespace: str) -> None:
        """Make a namespace's service account, as a controller would, so that pods can be made."""
        self.ask(
            f"/api/v1/namespaces/{namespace}/serviceaccounts",
            method="POST",
            body={"metadata": {"name": "default"}, "automountServiceAccountToken": False},
        )

    def _has(self, path: str) -> bool:
        try:
            self.ask(path)
        except (URLError, OSError):
            return False
        return True


def answers(url: str) -> bool:
    """Return whether a GET is answered with 200."""
    try:
        with urlopen(url, timeout=2) as answer:  # noqa: S310 -- our own server's address
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def _unverified() -> ssl.SSLContext:
    """Return a context that takes the API server's own certificate, made a moment ago."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
