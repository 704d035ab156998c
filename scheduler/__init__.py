"""The companion scheduler: a pure engine inside, watches and the extender's HTTP at the edge.

`engine` may import topology, msgspec and numpy only; `kube` and `extender` translate between it
and the world; `main` alone knows all of them.
"""
