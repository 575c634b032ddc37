"""What a measurement is, and where it is kept."""
