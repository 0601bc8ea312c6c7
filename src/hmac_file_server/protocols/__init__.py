"""Protocols: one file a wire protocol; each translates HTTP to uploads and files, and back."""

from hmac_file_server.protocols.application import Application

__all__ = ["Application"]
