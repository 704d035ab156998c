def topo() -> None:
    """x."""
