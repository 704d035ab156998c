"""The dashboard: pages of what the cluster has, who holds it, and why pods are where they are.

`svg`, `charts`, `machine`, `layout`, `history` and `views` are pure: values in, values out.
"""
