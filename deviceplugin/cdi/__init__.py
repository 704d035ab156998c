"""CDI: files that tell container runtimes what belongs to each device."""
