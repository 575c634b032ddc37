"""Recipes, launching engines, the grid of measurements, repeats and resuming."""
