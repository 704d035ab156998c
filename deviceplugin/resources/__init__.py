"""From GPUs and MIG instances to resources, the devices in them, and what the node offers."""
