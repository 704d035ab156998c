"""What the operator set -> the values that the engine works with."""

from __future__ import annotations

from scheduler.engine.framework import Framework
from scheduler.engine.profiles import BUILT_IN, Profile
from scheduler.engine.request import WHOLE_GPU_MILLI
from scheduler.engine.workload import Expected, GivenWorkload, LearnedWorkload, PodClass
from scheduler.errors import ProfileError
from scheduler.settings import ExtenderSettings
from topology.errors import TopologyError
from topology.profiles import profile_named
from topology.tables import DEFAULT_MIX, Mix


def build_profiles(settings: ExtenderSettings, framework: Framework) -> dict[str, Profile]:
    """Return the built-in profiles and the configured ones. Raises ProfileError."""
    profiles = dict(BUILT_IN)
    for name, given in settings.profiles.items():
        try:
            policy = profile_named(given.policy)
        except TopologyError as error:
            raise ProfileError(name, str(error)) from None
        profiles[name] = Profile(
            name=name,
            weights=tuple(given.weights.items()),
            tolerance=given.tolerance,
            policy=policy,
        )
    for profile in profiles.values():
        framework.check(profile)
    if settings.default_profile not in profiles:
        raise ProfileError(settings.default_profile, "is the default, and does not exist")
    return profiles


def build_mix(settings: ExtenderSettings) -> Mix:
    """Return the workload's mix. Raises SelectionError for one that cannot be."""
    return Mix(shares=tuple(sorted(settings.mix.items()))) if settings.mix else DEFAULT_MIX


def build_workload(settings: ExtenderSettings) -> Expected:
    """Return the classes of pods that are expected: the configured ones, or those to be learned."""
    if not settings.workload:
        return LearnedWorkload()
    counts: dict[PodClass, float] = {}
    for given in settings.workload:
        share = round(given.gpu_share * WHOLE_GPU_MILLI) if given.gpus else 0
        one = PodClass(
            cpu_milli=round(given.cpu * 1000),
            gpus=given.gpus,
            share_milli=share,
            models=given.gpu_models,
            gpu_memory_mib=given.gpu_memory_mib,
        )
        counts[one] = counts.get(one, 0.0) + given.weight
    return GivenWorkload(counts)
