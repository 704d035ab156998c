"""The synthetic pods."""

from __future__ import annotations

from embedded.workload import MachineFacts, render_pod, synthetic_pods
from topology.wire import GPU_MODEL_KEY

MACHINES = [MachineFacts("Tesla V100", 8, 4), MachineFacts("NVIDIA A100", 4)]


def test_a_seed_gives_the_same_pods() -> None:
    """The workload can be repeated."""
    assert synthetic_pods(50, 1, MACHINES) == synthetic_pods(50, 1, MACHINES)
    assert synthetic_pods(50, 1, MACHINES) != synthetic_pods(50, 2, MACHINES)


def test_the_mix_shows_every_kind() -> None:
    """All sizes, CPU-only, two-container and demanding pods occur; names are unique."""
    pods = synthetic_pods(200, 0, MACHINES)
    assert {pod.gpus for pod in pods} == {0, 1, 2, 4, 8}
    assert any(len(pod.containers) == 2 for pod in pods)
    assert len({key for pod in pods for key in pod.annotations}) == 3
    assert len({pod.name for pod in pods}) == 200


def test_every_pod_fits_a_machine() -> None:
    """No pod asks for more GPUs than a machine has, also of the model that it names."""
    size = {machine.model: machine.gpus for machine in MACHINES}
    for pod in synthetic_pods(300, 3, MACHINES):
        model = pod.annotations.get(GPU_MODEL_KEY)
        assert pod.gpus <= (size[model] if model else 8)
    assert {pod.gpus for pod in synthetic_pods(100, 0, MACHINES[1:])} == {0, 1, 2, 4}


def test_a_pod_is_rendered_with_equal_requests_and_limits() -> None:
    """Extended resources need limits; a CPU-only pod does not mention GPUs at all."""
    for pod in synthetic_pods(50, 0, MACHINES):
        spec = render_pod(pod)["spec"]
        for container, plan in zip(spec["containers"], pod.containers, strict=True):
            resources = container["resources"]
            assert resources["requests"] == resources["limits"]
            assert resources["limits"].get("nvidia.com/gpu") == (
                str(plan.gpus) if plan.gpus else None
            )
