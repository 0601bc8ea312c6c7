"""Uploads: what happens between a permission and a published file. Knows no HTTP."""

from hmac_file_server.uploads.errors import UploadRefused
from hmac_file_server.uploads.single import EXISTS, Plan, Result, SingleUpload, Stored

__all__ = ["EXISTS", "Plan", "Result", "SingleUpload", "Stored", "UploadRefused"]
