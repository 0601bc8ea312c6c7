"""A plain aiohttp upload server, as one would write it: checks the slot signature, streams to a temp file, renames.

python aiohttp_server.py PORT ROOT SECRET PROCESSES
"""

from __future__ import annotations

import hmac
import os
import secrets
import sys
from pathlib import Path

from aiohttp import web


class Uploads:
    """PUT and GET /upload/<path> over one folder."""

    def __init__(self, root: Path, secret: bytes) -> None:
        self._root = root
        self._temp = root.parent / "temp"
        self._secret = secret

    async def put(self, request: web.Request) -> web.Response:
        """Store the body; 201, 403 for a wrong signature, 400 for no length."""
        path = request.match_info["path"]
        if request.content_length is None:
            raise web.HTTPBadRequest
        expected = hmac.digest(self._secret, f"{path} {request.content_length}".encode(), "sha256").hex()
        if not hmac.compare_digest(expected, request.query.get("v", "")):
            raise web.HTTPForbidden
        target = self._root / path
        temporary = self._temp / secrets.token_hex(16)
        with open(temporary, "wb", buffering=0) as file:  # noqa: ASYNC230 - what is being measured
            async for chunk in request.content.iter_any():
                file.write(chunk)
        try:
            os.rename(temporary, target)
        except FileNotFoundError:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(temporary, target)
        return web.Response(status=201)

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Serve the file with sendfile."""
        return web.FileResponse(self._root / request.match_info["path"])


def main() -> None:
    """Serve until SIGTERM; further processes share the port."""
    port, root, secret, processes = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3].encode(), int(sys.argv[4])
    root.mkdir(parents=True, exist_ok=True)
    (root.parent / "temp").mkdir(exist_ok=True)
    uploads = Uploads(root, secret)
    app = web.Application(client_max_size=0)
    app.router.add_put("/upload/{path:.+}", uploads.put)
    app.router.add_get("/upload/{path:.+}", uploads.get)
    children: list[int] = []
    for _ in range(processes - 1):
        child = os.fork()
        if child == 0:
            children.clear()
            break
        children.append(child)
    try:
        web.run_app(app, host="127.0.0.1", port=port, reuse_port=processes > 1, access_log=None, print=lambda *_: None)
    finally:
        for child in children:
            os.kill(child, 15)
            os.waitpid(child, 0)


if __name__ == "__main__":
    main()
