"""The pure core: nodes as columns, claims on GPUs, plugins over whole columns, decisions as values.

Nothing here reads a clock, a socket, the environment or a logger: time is an argument, and what
happened is returned.
"""
