"""A whole Kubernetes cluster for one machine: real HTTP, real unix sockets, our real daemons.

`apiserver`, `kubelet` and `kube_scheduler` stand for Kubernetes' own parts and know nothing of
each other nor of ours, beyond kubelet's generated gRPC code. The modules here put them together
for the demo and start the daemons as processes; neither `scheduler` nor `deviceplugin` is
imported.
"""
