"""Trace replay: a cluster as columns, a published protocol, and policies to compare.

Pure: values in, values out. Files, clocks, processes and the screen are the command line's;
randomness comes in as a generator. The policies' score functions take arrays of nodes and know
nothing of traces, so that an engine can call them too.
"""
