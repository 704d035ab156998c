"""The sockets that kubelet talks to, and how each stays registered."""
