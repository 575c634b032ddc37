"""A router in front of replicas: chooses one for each request, and passes bytes through."""
