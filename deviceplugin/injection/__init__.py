"""What a container is given with its devices: variables, mounts, device nodes, CDI files."""
