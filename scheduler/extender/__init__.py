"""kube-scheduler's extender protocol over HTTP: translation only."""
