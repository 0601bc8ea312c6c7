"""hmac-file-server: signed, durable file uploads over bad networks."""

__version__ = "1.0.0"
