"""One file per operation: the torch reference, the optimised form, and the choice between them."""
