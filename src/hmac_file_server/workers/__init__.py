"""Workers: threads for what blocks (syncs, publishing, scans), off the event loop and the body loops."""

from hmac_file_server.workers.pool import PoolSize, WorkerPool

__all__ = ["PoolSize", "WorkerPool"]
