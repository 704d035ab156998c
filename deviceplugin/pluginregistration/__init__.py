"""The plugin watcher's registration; generated code only."""
