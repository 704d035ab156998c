"""What the node offers and how: NVIDIA's own configuration file, flags and variables, and more."""
