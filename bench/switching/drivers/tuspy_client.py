"""One upload by tuspy, with the retries of docs/clients.md: python tuspy_client.py JOB.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tusclient.client import TusClient

CHUNK = 5 << 20


def main() -> None:
    """Upload what the job says."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    client = TusClient(job["tus"], headers=job["tusFields"])
    with Path(job["path"]).open("rb") as file:
        uploader = client.uploader(
            file_stream=file, chunk_size=CHUNK, retries=5, retry_delay=1, metadata={"filename": job["name"]}
        )
        uploader.upload()
    print(json.dumps({"done": uploader.url}), flush=True)


if __name__ == "__main__":
    main()
