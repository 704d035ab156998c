"""PodResources: which pod holds which device; generated code only."""
