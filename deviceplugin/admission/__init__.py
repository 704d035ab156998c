"""kubelet's questions about one pod: who is asking, which set it gets, and whose the others are."""
