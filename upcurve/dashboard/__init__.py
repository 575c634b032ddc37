"""Charts and pages over records and comparisons."""
