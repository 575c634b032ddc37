"""The one exception of the measuring rooms that means: the caller gave something unusable."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input: one line that names the field, the problem and the mend.

    The command line prints `str(error)` on stderr and exits with 2; HTTP surfaces answer 4xx.
    """

    def __init__(self, field: str, problem: str, mend: str) -> None:
        self.field = field
        self.problem = problem
        self.mend = mend
        super().__init__(f"{field}: {problem}; {mend}")

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str, str]]:
        """Travel between processes with its parts, not with the line that they make."""
        return type(self), (self.field, self.problem, self.mend)
