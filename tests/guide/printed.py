"""What the network resilience guide of the original server prints, character by character.

Source: "Network Resilience Implementation Guide" (sections Configuration, API Usage, Client-Side JavaScript
Example, Monitoring). `guide.toml` and `uploader-class.js` are its two longer listings, each the whole of one
code block; they hold nothing else, not even a note of where they are from, so that they can be used as they
are. The tests fill in what a reader has to fill in (port, signature, session) and change nothing else.
"""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent

CONFIGURATION = (HERE / "guide.toml").read_text(encoding="utf-8")
"""The sample of `config.toml`; its second `[server]` is the guide's."""

LISTING = (HERE / "uploader-class.js").read_text(encoding="utf-8")
"""The class and the two lines that use it on `fileInput`."""

CLASS = LISTING[: LISTING.index("// Usage\n")]
"""The class alone."""

TRADITIONAL = """\
curl -X POST -F 'file=@large_file.zip' \\
  -H "X-Signature: HMAC_SIGNATURE" \\
  http://localhost:8080/upload
"""

CREATE = """\
curl -X POST \\
  -H "X-Filename: large_file.zip" \\
  -H "X-Total-Size: 104857600" \\
  -H "X-Signature: HMAC_SIGNATURE" \\
  http://localhost:8080/upload/chunked
# Response: { "session_id": "1234567890_abc123", "chunk_size": 5242880, "total_chunks": 20 }
"""

CHUNK = """\
# Upload chunk 0
curl -X PUT \\
  -H "X-Upload-Session-ID: 1234567890_abc123" \\
  -H "X-Chunk-Number: 0" \\
  -H "Content-Type: application/octet-stream" \\
  --data-binary @chunk_0.bin \\
  http://localhost:8080/upload/chunked
# Response: { "success": true, "chunk": 0, "uploaded_bytes": 5242880, "total_size": 104857600, "progress": 0.05, "completed": false }
"""

STATUS = """\
curl "http://localhost:8080/upload/status?session_id=1234567890_abc123"
# Response: { "session_id": "1234567890_abc123", "filename": "large_file.zip", "total_size": 104857600, "uploaded_bytes": 52428800, "progress": 0.5, "completed": false, "chunks": 10 }
"""

SIGNATURE = "HMAC_SIGNATURE"
"""Stands in the curl lines where the signature goes."""

SESSION = "1234567890_abc123"
"""The session of the curl lines and of the answers."""

PORT = ":8080/"
"""The port of the curl lines; the host is `localhost`, and so it is here."""

SCRIPT_SIGNATURE = "YOUR_HMAC_SIGNATURE"
"""Stands in the class where the signature goes."""

TOTAL_SIZE = 104857600
"""Bytes of the file of the curl lines."""

SLICE = 5 * 1024 * 1024
"""Bytes of a slice of the class, whatever chunk size the server announced."""

ACTIVE_SESSIONS = "2025-07-17 12:35:00 INFO Active upload sessions: 3"
ACTIVE_UPLOADS = "2025-07-17 12:35:00 INFO Network resilience: 5 uploads active"
"""Lines of the log, from Monitoring."""
