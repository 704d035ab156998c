"""The dashboard: pages of what the cluster has, who holds it, and why pods are where they are.

`charts`, `history`, `layout`, `machine`, `nvlinks`, `pcie`, `strokes`, `svg` and `views` are pure:
values in, values out.
"""
