"""What both daemons need around their work: Kubernetes transport, reflector, logs, settings, life.

May import topology, never a daemon, never the mock.
"""
