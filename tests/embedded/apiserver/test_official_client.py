"""The official generated client, models and all, works against the embedded server."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedded.apiserver import ApiServer


def test_the_generated_client_creates_lists_patches_binds_watches_and_deletes(
    server: ApiServer, tmp_path: Path
) -> None:
    """CoreV1Api accepts every answer, so they have the shape of the real ones."""
    from kubernetes import client, config, watch
    from kubernetes.client.exceptions import ApiException

    kubeconfig = str(server.write_kubeconfig(tmp_path / "kubeconfig"))
    core = client.CoreV1Api(config.new_client_from_config(kubeconfig))
    core.create_node(client.V1Node(metadata=client.V1ObjectMeta(name="n1")))
    core.patch_node("n1", {"metadata": {"annotations": {"gputopo.dev/state": "x"}}})
    core.patch_node_status("n1", {"status": {"capacity": {"cpu": "4"}}})
    [node] = core.list_node().items
    assert node.metadata.annotations == {"gputopo.dev/state": "x"}
    assert node.status.capacity == {"cpu": "4"}

    pod = client.V1Pod(
        metadata=client.V1ObjectMeta(name="p"),
        spec=client.V1PodSpec(containers=[client.V1Container(name="c", image="i")]),
    )
    made = core.create_namespaced_pod("default", pod)
    with pytest.raises(ApiException) as caught:
        core.create_namespaced_pod("default", pod)
    assert caught.value.status == 409

    binding = client.V1Binding(
        metadata=client.V1ObjectMeta(
            name="p", uid=made.metadata.uid, annotations={"gputopo.dev/gpus": "set"}
        ),
        target=client.V1ObjectReference(kind="Node", name="n1"),
    )
    core.create_namespaced_pod_binding("p", "default", binding, _preload_content=False)
    bound = core.read_namespaced_pod("p", "default")
    assert bound.spec.node_name == "n1"
    assert bound.metadata.annotations == {"gputopo.dev/gpus": "set"}
    chosen = core.list_pod_for_all_namespaces(field_selector="spec.nodeName=n1", limit=1)
    assert [item.metadata.name for item in chosen.items] == ["p"]

    stream = watch.Watch()
    for event in stream.stream(core.list_namespaced_pod, "default", timeout_seconds=5):
        assert (event["type"], event["object"].metadata.name) == ("ADDED", "p")
        stream.stop()
    core.delete_namespaced_pod("p", "default", grace_period_seconds=0)
    assert core.list_namespaced_pod("default").items == []
    core.api_client.close()
