"""What the dashboard's API answers: one pydantic model for each answer, version 1."""
