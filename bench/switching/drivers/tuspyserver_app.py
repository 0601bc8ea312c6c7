"""tuspyserver on FastAPI and uvicorn, as its README starts it: python tuspyserver_app.py FOLDER HOST PORT.

Runs in .venv-bench (requirements/bench.txt), so nothing that it imports is there where this is checked.
"""

from __future__ import annotations

import sys
from importlib import import_module


def main() -> None:
    """Serve until told to end."""
    folder, host, port = sys.argv[1:]
    app = import_module("fastapi").FastAPI()
    app.include_router(import_module("tuspyserver").create_tus_router(prefix="tus", files_dir=folder))
    import_module("uvicorn").run(app, host=host, port=int(port), log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
