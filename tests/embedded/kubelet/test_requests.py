"""What a pod counts for."""

from __future__ import annotations

import pytest

from embedded.kubelet.errors import AllocationError
from embedded.kubelet.requests import pod_requests, whole_limits
from runtime.objects import Resources
from tests.embedded.kubelet.node import container, pod
from tests.embedded.kubelet.plugin import GPU


def test_containers_add_up() -> None:
    """A pod counts for the sum of its containers."""
    assert pod_requests(pod("p", containers=[container("x", 2), container("y", 3)])) == {GPU: 5}


def test_the_greediest_init_container_counts() -> None:
    """A pod counts for its largest init container if that is more than the sum."""
    one = pod("p", containers=[container("x", 1)], init=[container("i", 4), container("j", 2)])
    assert pod_requests(one) == {GPU: 4}


def test_sidecars_count_with_everything_after_them() -> None:
    """A sidecar counts beside the containers and beside later init containers."""
    side = container("s", 1, restart_policy="Always")
    one = pod("p", containers=[container("x", 1)], init=[side, container("i", 4)])
    assert pod_requests(one) == {GPU: 5}


def test_requests_beat_limits() -> None:
    """A request counts; a limit only where there is no request."""
    resources = Resources(requests={"cpu": "500m"}, limits={"cpu": "2", "memory": "1Gi"})
    one = pod("p", containers=[container("x", None), container("y", None)])
    plain = one.spec.containers[0]
    both = pod("p", containers=[type(plain)(name="x", resources=resources)])
    assert pod_requests(both) == {"cpu": 500, "memory": 2**30}


def test_only_names_with_a_domain_are_plugins_business() -> None:
    """CPU and memory are no device plugin's resources."""
    assert whole_limits(container("x", 2, limits={"cpu": "1", "a.b/c": "3"})) == {
        GPU: 2,
        "a.b/c": 3,
    }


def test_an_unreadable_limit_names_its_resource() -> None:
    """A limit that is no quantity is one clear error."""
    with pytest.raises(AllocationError, match=r"nvidia.com/gpu: 'x' is not a quantity"):
        whole_limits(container("x", "x"))
