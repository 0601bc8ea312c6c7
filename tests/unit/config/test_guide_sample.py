"""The guide's sample configuration, as printed."""

from pathlib import Path

from hmac_file_server.config import load

SAMPLE = """\
[uploads]
chunked_uploads_enabled = true      # Enable chunked uploads
resumable_uploads_enabled = true    # Enable resumable functionality
chunk_size = "10MB"                 # Chunk size (optimized for performance)
max_resumable_age = "48h"           # Session persistence time

[timeouts]
readtimeout = "4800s"               # 80 minutes (extended for large files)
writetimeout = "4800s"              # 80 minutes (extended for large files)
idletimeout = "4800s"               # 80 minutes (extended for large files)

[server]
enable_dynamic_workers = true       # Enable dynamic worker scaling
worker_scale_up_thresh = 50         # Scale up when queue reaches 50
worker_scale_down_thresh = 10       # Scale down when queue drops to 10

[workers]
numworkers = 4                      # Base number of workers
uploadqueuesize = 50                # Upload queue size

[deduplication]
enabled = true                      # Enable file deduplication
maxsize = "1GB"                     # Deduplicate files under 1GB only

[server]
networkevents = true                # Enable network monitoring
"""


def test_the_sample_loads_as_printed(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(SAMPLE)
    loaded = load(path, environ={}, overrides=())
    settings = loaded.settings
    assert settings.uploads.chunked_uploads_enabled is True
    assert settings.uploads.resumable_uploads_enabled is True
    assert settings.uploads.chunk_size == 10 * 1024**2
    assert settings.uploads.max_resumable_age == 48 * 3600.0
    assert settings.timeouts.readtimeout == 4800.0
    assert settings.timeouts.writetimeout == 4800.0
    assert settings.timeouts.idletimeout == 4800.0
    assert settings.server.enable_dynamic_workers is True
    assert settings.server.worker_scale_up_thresh == 50
    assert settings.server.worker_scale_down_thresh == 10
    assert settings.workers.numworkers == 4
    assert settings.workers.uploadqueuesize == 50
    assert settings.deduplication.enabled is True
    assert settings.deduplication.maxsize == 1024**3
    assert settings.server.networkevents is True
    assert loaded.warnings[:1] == (f"{path}:25: [server] is there already in line 12; both are used as one",)
    assert not [text for text in loaded.warnings[1:] if "does not use yet" not in text]
    assert loaded.origins["server.networkevents"] == "config.toml:26"
