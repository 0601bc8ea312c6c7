"""The server with faults: `python -m tests.security.faulty_server WORD...`; the words are those of the command line.

A request that says `X-Fault: <place>` meets an exception there, and a name with `fault-<place>` in it does. What is
raised has nothing to do with the request; what is looked for is what else comes out with it.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import Any, Final

from hmac_file_server.auth import Gate
from hmac_file_server.cli import main
from hmac_file_server.files.local import LocalFileStore
from hmac_file_server.stores.sqlite import SqliteStore
from hmac_file_server.uploads import Engine, Lease

PLACES: Final = ("gate", "load", "spool", "publish", "delete", "create", "progress", "write", "store", "disk")


class InjectedFaultError(Exception):
    """A mistake of ours."""


def _wrap(kind: Any, name: str, armed: Callable[..., bool], error: Callable[[], BaseException]) -> None:
    plain = getattr(kind, name)

    def altered(self: Any, *arguments: Any, **named: Any) -> Any:
        if armed(*arguments, *named.values()):
            raise error()
        return plain(self, *arguments, **named)

    setattr(kind, name, altered)


def _named(place: str) -> Callable[..., bool]:
    return lambda *arguments: any(f"fault-{place}" in repr(argument) for argument in arguments)


def _fault() -> BaseException:
    return InjectedFaultError("a fault for the test")


def _disk_fault() -> BaseException:
    return OSError(errno.EIO, os.strerror(errno.EIO))


def alter() -> None:
    """Put every fault in its place."""
    _wrap(Gate, "authorise", lambda request, *_rest: request.header(b"x-fault") == b"gate", _fault)
    _wrap(LocalFileStore, "load", _named("load"), _fault)
    _wrap(LocalFileStore, "open", _named("disk"), _disk_fault)
    _wrap(LocalFileStore, "publish_soon", _named("publish"), _fault)
    _wrap(LocalFileStore, "put", _named("publish"), _fault)
    _wrap(LocalFileStore, "delete", _named("delete"), _fault)
    _wrap(Engine, "create", _named("create"), _fault)
    _wrap(SqliteStore, "submit", _named("store"), _fault)
    _wrap(Lease, "write", lambda view, *_rest: bytes(view[:11]) == b"fault-write", _fault)


if __name__ == "__main__":
    alter()
    sys.exit(main(sys.argv[1:]))
