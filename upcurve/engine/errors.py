"""The one exception of the engine that means: the caller gave something unusable."""


class EngineInputError(ValueError):
    """Bad input to the engine: one line that names the field, the problem and the mend.

    `upcurve serve` prints it and exits with 2; the HTTP server answers 400 with it.
    """

    def __init__(self, field: str, problem: str, mend: str) -> None:
        self.field = field
        self.problem = problem
        self.mend = mend
        super().__init__(f"{field}: {problem}; {mend}")
