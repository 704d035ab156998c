"""The plugin watcher's registration v1; generated code only."""
