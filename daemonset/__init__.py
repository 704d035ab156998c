"""How gputopo gets onto a cluster: manifests, and the code that builds the images."""
