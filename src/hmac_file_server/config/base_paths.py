"""Base paths: the URL prefixes under which the stored tree is offered."""

from collections.abc import Iterable


class BasePaths:
    """The configured prefixes, longest first.

    A prefix is normalised to begin and end with "/". The storage path of a URL is what follows the
    longest prefix that matches; the whole path (less its leading slash) is the form that the Go
    hmac-file-server signs and stores under, so both are offered.
    """

    __slots__ = ("prefixes",)

    def __init__(self, prefixes: Iterable[str]) -> None:
        normalised = {"/" + p.strip("/") + "/" if p.strip("/") else "/" for p in prefixes}
        self.prefixes = tuple(sorted(normalised, key=len, reverse=True))

    def relative(self, path: str) -> str | None:
        """Path below the longest matching prefix, without a leading slash; None when none matches."""
        for prefix in self.prefixes:
            if path.startswith(prefix):
                return path[len(prefix) :]
        return None

    def forms(self, path: str) -> tuple[str, ...]:
        """Storage-path spellings of one URL path: relative first, then the whole path when it differs."""
        whole = path[1:]
        relative = self.relative(path)
        if relative is None:
            return ()
        return (relative,) if relative == whole else (relative, whole)
