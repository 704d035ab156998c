"""The per-node daemon: tells kubelet of the GPUs, and gives each pod the set it was bound with.

May import topology, runtime, grpc and pynvml; never the scheduler and never the mock. Its parts,
from the top down; each imports only what stands below it:

| part | does |
|---|---|
| main | builds everything, owns the threads |
| offering | what is offered: stock, endpoints, CDI files, configuration, wired |
| serving | the sockets that kubelet talks to, and how each stays registered |
| publishing | annotations of the Node, labels |
| guarding | watches over the GPUs: monitor, watchdog, cordon, Events, report |
| admission | which pod is asking, and which set it gets |
| metrics, gauges | what Prometheus sees |
| injection | what a container is given with its devices: variables, nodes, CDI |
| resources | GPUs and MIG instances as resources and devices: inventory and stock |
| config, settings | what is offered and how, and how the daemon runs |
| discovery, health | what the machine is; what events and readings of a GPU mean |
| nvml, pods | NVML; who holds what by kubelet, which pods there are by the API server |
"""
