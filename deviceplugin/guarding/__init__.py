"""What watches over the GPUs and tells of it: monitor, watchdog, cordon, Events, the report."""
