"""What Allocate tells the container runtime. Pure but for `nodes`, which looks at /dev."""
