"""The Kubernetes edge: objects into columns, decisions into Bindings."""
