"""How what prefill workers computed gets into the caches of decode workers."""
