"""The load client: workload to requests to timestamps to metrics, over HTTP and nothing else."""
