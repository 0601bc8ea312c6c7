"""The coordinator of a server that shares its storage folder with nobody."""

from collections.abc import Callable


class NoCoordinator:
    """Has nobody to ask."""

    def start(self, on_release: Callable[[str, Callable[[], None]], None], on_progress: Callable[[str], None]) -> None:
        """Nobody will ever call."""

    def ask(self, upload_id: str, done: Callable[[bool], None], /) -> None:  # noqa: ARG002
        """Answer False at once."""
        done(False)

    def tell(self, upload_id: str, /) -> None:
        """Nobody listens."""

    def close(self) -> None:
        """Nothing to end."""
