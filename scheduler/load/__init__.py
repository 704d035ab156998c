"""How busy nodes are: samples from Prometheus or the metrics API -> one number a node.

The core is pure: bytes -> samples (`answers`, `node_metrics`), names (`directory`), what the
samples cannot show yet (`recent`), the number and its explanation (`table`, `report`), the
circuit breaker (`breaker`). `sources` and `feed` are the edge. A decision never waits for any of
it: it reads a column.
"""
