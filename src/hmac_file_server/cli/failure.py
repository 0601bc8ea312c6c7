"""What a command says when it cannot do what was asked."""


class Failure(Exception):  # noqa: N818 - a refusal, not a fault
    """One clear line for standard error, and the exit code that goes with it."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
