"""How Redis is reached: the client, its errors in words, the pauses between attempts.

redis-py is an optional dependency and slow to import, so that it is imported when a client is made.
"""

from random import SystemRandom
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from hmac_file_server.stores.contract import StoreError

PREFIX: Final = "hmac-file-server:"
# Its own, so that threads of ours never touch the generator that all of Python shares.
_jitter: Final = SystemRandom()
_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 5.0


def redis_client(url: str, *, patience: float) -> Any:
    """A client that connects when it is first used. Nothing it does takes longer than twice `patience` seconds.

    It tries nothing twice: what to do about a failure is its user's business. Raises StoreError when the URL
    is none or redis-py is missing.
    """
    try:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError as error:
        raise StoreError("redis-py is not installed; the extra is hmac-file-server[redis]") from error
    try:
        return redis.Redis.from_url(
            url,
            socket_timeout=patience,
            socket_connect_timeout=patience,
            socket_keepalive=True,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            client_name="hmac-file-server",
        )
    except ValueError:
        raise StoreError("the URL of Redis is not usable") from None  # its text might hold the password


def in_words(error: BaseException, url: str) -> str:
    """An error for the log, without the password of the URL."""
    text = f"{type(error).__name__}: {error}"
    try:
        parts = urlsplit(url)
        # redis-py takes it in the query as well: "unix:///path?password=...".
        given = [parts.password or "", *(text for name, text in parse_qsl(parts.query) if name == "password")]
    except ValueError:
        return type(error).__name__
    if "@" in parts.path + parts.query + parts.fragment:
        # A password with a "/", "?" or "#" in it that was not escaped: who knows where it ends.
        return type(error).__name__
    for secret in {*given, *map(unquote, given)}:
        if secret:
            text = text.replace(secret, "***")
    return text


class Backoff:
    """Pauses that double, with jitter: servers that lost Redis together do not come back all at once."""

    __slots__ = ("_pause",)

    def __init__(self) -> None:
        self._pause = _FIRST_PAUSE

    def next(self) -> float:
        """Seconds to pause now."""
        pause = self._pause
        self._pause = min(pause * 2, _LONGEST_PAUSE)
        return _jitter.uniform(pause / 2, pause)

    def reset(self) -> None:
        """It worked."""
        self._pause = _FIRST_PAUSE
