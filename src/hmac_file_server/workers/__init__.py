"""Workers: threads for what blocks (syncs, publishing, scans), off the event loop and the body loops."""

from hmac_file_server.workers.pool import PoolSize, WorkerPool
from hmac_file_server.workers.rounds import done_by

__all__ = ["PoolSize", "WorkerPool", "done_by"]
