"""The tests, by package; `waiting` holds the one way to wait."""
