"""What the server and its GPUs say about themselves while they are loaded."""
