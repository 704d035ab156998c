"""Which pods there are and what they hold: kubelet's PodResources and the API server's watch."""
