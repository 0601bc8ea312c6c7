"""Uploads that survive bad networks: `AsyncUploader`, `Uploader` (docs/client.md)."""
