"""Uploads that survive bad networks: `AsyncUploader`, `Uploader` (docs/client.md)."""

from hmac_file_server.client.errors import (
    BadAnswer,
    ConnectionLost,
    ContentDiffers,
    GaveUp,
    Redirected,
    Refused,
    SessionGone,
    SourceChanged,
    UploadFailed,
)
from hmac_file_server.client.network import NetworkWatch
from hmac_file_server.client.progress import Progress
from hmac_file_server.client.protocol import Result
from hmac_file_server.client.state import StateStore
from hmac_file_server.client.target import Target, TargetError
from hmac_file_server.client.uploader import AsyncUploader, Uploader

__all__ = [
    "AsyncUploader",
    "BadAnswer",
    "ConnectionLost",
    "ContentDiffers",
    "GaveUp",
    "NetworkWatch",
    "Progress",
    "Redirected",
    "Refused",
    "Result",
    "SessionGone",
    "SourceChanged",
    "StateStore",
    "Target",
    "TargetError",
    "UploadFailed",
    "Uploader",
]
