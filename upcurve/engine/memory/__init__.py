"""KV pages, recurrent-state slots and the budget that sizes them."""
