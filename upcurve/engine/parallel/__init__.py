"""Several ranks as one engine: which layout, who has which share, and how they talk."""
