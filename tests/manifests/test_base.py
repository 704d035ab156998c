"""The manifests are what the daemons and Kubernetes take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml

from cli.main import build_app

BASE = Path(__file__).parents[2] / "daemonset" / "base"
KUSTOMIZATION = yaml.safe_load((BASE / "kustomization.yaml").read_text())


def read_objects() -> list[dict[str, Any]]:
    """Return every object of the base, in the kustomization's order."""
    return [
        document
        for name in KUSTOMIZATION["resources"]
        for document in yaml.safe_load_all((BASE / name).read_text())
    ]


def read_containers() -> list[dict[str, Any]]:
    """Return every container of the base."""
    return [
        container
        for item in read_objects()
        if item["kind"] in ("DaemonSet", "Deployment")
        for container in item["spec"]["template"]["spec"]["containers"]
    ]


def test_the_kustomization_names_every_file() -> None:
    """No manifest lies in the folder without being applied."""
    files = {path.name for path in BASE.glob("*.yaml")} - {"kustomization.yaml"}
    assert files == set(KUSTOMIZATION["resources"])


@pytest.mark.parametrize(
    "item", read_objects(), ids=lambda item: f"{item['kind']}-{item['metadata']['name']}"
)
def test_every_object_is_valid_in_strict_mode(item: dict[str, Any]) -> None:
    """Kubernetes 1.36's schema knows every field of every object."""
    kubernetes_validate.validate(item, "1.36", strict=True)


@pytest.mark.parametrize(
    "container",
    [container for container in read_containers() if container["image"] == "gputopo"],
    ids=lambda container: container["name"],
)
def test_the_daemons_take_the_arguments_of_the_manifests(container: dict[str, Any]) -> None:
    """Each argument is an option that the subcommand knows, with a value of its type."""
    name, *options = container["args"]
    command = typer.main.get_command(build_app([name]))
    with command.make_context("gputopo", [name, *options]) as context:
        assert context.command is command
        subcommand = command.get_command(context, name)
        values = subcommand.make_context(name, list(options), parent=context).params
    assert len(options) == sum(
        f"--{key.replace('_', '-')}" in {option.split("=")[0] for option in options}
        for key in values
    )


def test_no_container_keeps_a_capability_or_a_writable_root() -> None:
    """Both daemons and kube-scheduler run with everything dropped."""
    for container in read_containers():
        context = container["securityContext"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False


def test_the_scheduler_asks_the_extender_where_it_listens() -> None:
    """The extender's port in the scheduler's configuration is the one of its arguments."""
    (config,) = (item for item in read_objects() if item["kind"] == "ConfigMap")
    (extender,) = yaml.safe_load(config["data"]["kube-scheduler.yaml"])["extenders"]
    (arguments,) = (c["args"] for c in read_containers() if c["name"] == "extender")
    assert f"--port={extender['urlPrefix'].rsplit(':', 1)[1]}" in arguments
    assert (extender["filterVerb"], extender["bindVerb"]) == ("filter", "bind")
    assert extender["ignorable"] is False
    assert "prioritizeVerb" not in extender
