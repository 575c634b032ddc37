"""The load client: workload -> requests -> timestamps -> metrics."""
