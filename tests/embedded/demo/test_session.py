"""How a run creates its pods while the API server comes and goes."""

from __future__ import annotations

from pathlib import Path

from embedded.apiserver import ApiServer
from embedded.apiserver.resources import PODS, Target
from embedded.session import create_due
from embedded.workload import NAMESPACE, ContainerPlan, PodPlan, render_pod
from runtime.kube import connect


def test_what_an_absent_server_did_not_take_stays_due(tmp_path: Path) -> None:
    """Pods are created in their order once it is back; one that it took unheard is not again."""
    server = ApiServer()
    server.start()
    server.write_kubeconfig(tmp_path / "kubeconfig")
    client = connect(str(tmp_path / "kubeconfig"))
    plans = [PodPlan(name, (ContainerPlan("main", 1, 1000, 1024),)) for name in "abc"]
    try:
        server.api.create(Target(PODS, NAMESPACE), render_pod(plans[0]))
        backlog = list(plans)
        server.go_away()
        create_due(client, backlog)
        assert backlog == plans
        server.come_back()
        create_due(client, backlog)
        assert backlog == []
        found = server.api.list(Target(PODS, NAMESPACE)).entries
        assert [entry.object["metadata"]["name"] for entry in found] == ["a", "b", "c"]
    finally:
        client.close()
        server.stop()
