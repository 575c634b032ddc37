"""Training of the small model: one file a part, `python -m models.training.train` runs them."""
