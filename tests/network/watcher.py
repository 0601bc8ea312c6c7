"""Runs a network monitor, as the server does, and reports on stdout: one JSON object a line.

    watcher.py [--deaf] [--lossy] [--uvloop] [--poll SECONDS]

The first line is `{"ready": [addresses]}`; each change is `{"changes": [differences], "gone": [addresses]}`; a log
event is `{"log": name, "reason": text}`. With --deaf netlink events are refused, with --lossy each one that comes is
lost (ENOBUFS). Ends when stdin is closed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import importlib
import json
import os
import socket
import sys

from hmac_file_server.network import Monitor, Snapshot, rtnetlink


def say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


class Lossy(socket.socket):
    """Loses what it receives, and says so, as the kernel does when the buffer is full."""

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        super().recv(size, flags)
        raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))


def lossy() -> socket.socket:
    real = rtnetlink.events()
    return Lossy(fileno=real.detach())


def refused() -> socket.socket:
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def log(event: str, /, **fields: object) -> None:
    say(log=event, **fields)


def changed(old: Snapshot, new: Snapshot) -> None:
    say(changes=new.differences(old), gone=sorted(old.addresses - new.addresses))


async def watch(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    events = refused if options.deaf else lossy if options.lossy else rtnetlink.events
    monitor = Monitor(loop, changed, options.poll, events=events, log=log)
    monitor.start()
    assert monitor.current is not None
    say(ready=sorted(monitor.current.addresses))
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()
    loop.remove_reader(sys.stdin.fileno())
    monitor.stop()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--deaf", action="store_true")
    parser.add_argument("--lossy", action="store_true")
    parser.add_argument("--uvloop", action="store_true")
    parser.add_argument("--poll", type=float, default=5.0)
    options = parser.parse_args()
    factory = importlib.import_module("uvloop").new_event_loop if options.uvloop else None
    with contextlib.closing(sys.stdin), asyncio.Runner(loop_factory=factory) as runner:
        runner.run(watch(options))


if __name__ == "__main__":
    main()
