"""Points -> frontier -> curve -> comparison, cost, uncertainty: pure functions, no I/O."""
