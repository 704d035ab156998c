"""The per-node daemon: tells kubelet of the GPUs, and gives each pod the set it was bound with.

May import topology, runtime, grpc and pynvml; never the scheduler and never the mock.
"""
