"""What the Node says of itself: annotations of topology and state, and labels."""
