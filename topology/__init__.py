"""The pure model of GPUs, their links, and the sets that can be made of them.

May import the standard library, msgspec, numpy and yaml (as a parser of text). Never a clock, a
socket, the environment or a logger: time and randomness are arguments, files are read by callers
(`topology.catalogue` alone opens the machine files that ship with the package).
"""
