"""PodResources v1; generated code only."""
