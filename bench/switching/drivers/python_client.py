"""One upload by our Python client: python python_client.py chunked|tus JOB.json. Retries for ever."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from hmac_file_server.client import AsyncUploader, Target


async def upload(job: dict[str, Any], protocol: str) -> str:
    """Upload what the job says; the URL."""
    target = Target.parse(job["base"], secret=job["secret"] or None)
    uploader = AsyncUploader(target, protocol=protocol, state=None, patience=None)
    result = await uploader.upload(Path(job["path"]))
    return str(result.url)


def main() -> None:
    """Upload and tell."""
    protocol, path = sys.argv[1:]
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    print(json.dumps({"done": asyncio.run(upload(job, protocol))}), flush=True)


if __name__ == "__main__":
    main()
