"""One upload by the Python client: python python_client.py URL SECRET PATH PARALLEL DIGEST. Prints seconds."""

from __future__ import annotations

import sys
import time

from hmac_file_server.client import Target, Uploader


def main() -> None:
    """Upload and tell how long it took, from the call to its return."""
    url, secret, path, parallel, digest = sys.argv[1:]
    uploader = Uploader(Target.parse(url, secret=secret), parallel=int(parallel), digest=digest == "yes")
    began = time.perf_counter()
    uploader.upload(path)
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main()
