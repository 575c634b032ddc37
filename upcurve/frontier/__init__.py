"""Points -> frontier -> curve -> comparison, cost, uncertainty: pure functions, no input or output."""
