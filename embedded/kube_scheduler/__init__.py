"""kube-scheduler's part in the embedded cluster: queue, own filters, extender calls, binding."""
