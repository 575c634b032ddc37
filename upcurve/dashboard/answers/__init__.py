"""The dashboard's answers: one function for each endpoint, from a question to a contract model."""
