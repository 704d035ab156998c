"""Measurements that are run by hand, and that no test depends on."""
