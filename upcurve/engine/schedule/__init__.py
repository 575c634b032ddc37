"""Request life cycle and token-budget steps."""
