"""The container runtime interface; generated code only."""
