"""Uploads by many clients to many servers while the network changes under them; `bench.switch` is the command."""
