"""A process that wants a part of a package carries that part only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"""


def _run(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    """Return a kubeconfig that leads nowhere."""
    path = tmp_path / "kubeconfig"
    path.write_text(KUBECONFIG)
    return path


def test_the_client_comes_without_its_package(kubeconfig: Path) -> None:
    """Connecting and calling imports no dynamic client, no JSON schemas, no OAuth."""
    code = """
import sys
from runtime.errors import UnreachableError
from runtime.kube import connect
client = connect(sys.argv[1])
try:
    client.patch("/api/v1/nodes/n1", {"metadata": {"annotations": {"a": "b"}}})
except UnreachableError:
    print("called")
client.close()
wanted = {"kubernetes.dynamic", "kubernetes.watch", "jsonschema", "oauthlib", "requests"}
print(sorted(wanted & sys.modules.keys()))
"""
    assert _run(code, str(kubeconfig)) == "called\n[]"


def test_the_whole_package_can_be_imported_afterwards(kubeconfig: Path) -> None:
    """Whoever else wants all of `kubernetes` gets it, over the same modules."""
    code = """
import sys
from runtime.kube import connect
connect(sys.argv[1]).close()
before = sys.modules["kubernetes.client"]
import kubernetes
assert kubernetes.client is before
assert kubernetes.config.ConfigException is sys.modules[
    "kubernetes.config.config_exception"
].ConfigException
print(kubernetes.watch.Watch.__name__, kubernetes.client.CoreV1Api.__name__)
"""
    assert _run(code, str(kubeconfig)) == "Watch CoreV1Api"


def test_what_is_put_off_comes_with_its_first_use(kubeconfig: Path) -> None:
    """A kubeconfig that logs in by OpenID Connect gets the real session, and its real errors."""
    code = """
import sys
from runtime.kube import connect
connect(sys.argv[1]).close()
from kubernetes.config import kube_config
assert not {"oauthlib", "requests_oauthlib"} & sys.modules.keys()
errors = kube_config.oauthlib.oauth2.rfc6749.errors
session = kube_config.OAuth2Session(client_id="c")
import oauthlib.oauth2
import requests_oauthlib
assert type(session) is requests_oauthlib.OAuth2Session
print(errors.InvalidClientIdError is oauthlib.oauth2.rfc6749.errors.InvalidClientIdError)
"""
    assert _run(code, str(kubeconfig)) == "True"


def test_what_is_hidden_is_hidden_for_a_while() -> None:
    """Inside, the module is not installed; afterwards it is; one that is there stays."""
    code = """
import json
from runtime.lean_imports import without
with without("colorsys", "json"):
    import json
    try:
        import colorsys
    except ImportError:
        print("hidden")
import colorsys
print(colorsys.__name__)
"""
    assert _run(code) == "hidden\ncolorsys"


def test_an_unknown_package_is_left_to_the_import() -> None:
    """A package that is not there fails where it is imported, with Python's own words."""
    code = """
from runtime.lean_imports import without_init
with without_init("no_such_package"):
    try:
        import no_such_package.part
    except ModuleNotFoundError as error:
        print(error)
"""
    assert _run(code) == "No module named 'no_such_package'"
