"""From GPUs and MIG instances to resources and the devices in them. Pure."""
