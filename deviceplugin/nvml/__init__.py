"""NVML as the plugin sees it, over unmodified pynvml: the only place that imports it."""
