"""What the machine is: NVML and sysfs to a NodeTopology."""
