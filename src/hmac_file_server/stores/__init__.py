"""Where the state of resumable uploads is kept: SQLite on the storage itself, mirrored to Redis where asked for."""
