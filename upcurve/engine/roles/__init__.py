"""Prefill workers and decode workers: who asks whom, and what happens when one of them is gone."""
