"""Many pods over a long time, with faults: what leaks, and whether the books stay right."""
