"""Telemetry: log events, the access log."""
