"""The catalogue of log events.

Each has a stable name (the JSON field `event`), a severity, and the text of its line; the words in braces are
its fields. docs/logging.md lists them all, and a test compares. To add one: a line here and a row there.
"""

import logging
from dataclasses import dataclass

DEBUG, INFO, WARNING, ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR


@dataclass(frozen=True, slots=True)
class Event:
    """One kind of log line; `text` is a template for str.format_map, in which every field is escaped text."""

    name: str
    level: int
    text: str


EVENTS: dict[str, Event] = {}
"""Every event by name."""


def _declare(name: str, level: int, text: str) -> Event:
    if name in EVENTS:
        raise ValueError(f"the event {name} is there already")
    event = EVENTS[name] = Event(name, level, text)
    return event


# The life of the server
SERVER_STARTING = _declare("server_starting", INFO, "hmac-file-server {version} starting, storage {storage_path}")
SERVER_LISTENING = _declare("server_listening", INFO, "Listening on {address}")
SERVER_READY = _declare("server_ready", INFO, "Ready with {processes} processes")
SERVER_STOPPING = _declare("server_stopping", INFO, "Stopping on {signal}, {requests} requests running")
SERVER_STOPPED = _declare("server_stopped", INFO, "Stopped")
SERVER_FAILED = _declare("server_failed", ERROR, "Cannot run: {reason}")
PROCESS_STARTED = _declare("process_started", DEBUG, "Server process {process} started as {pid}")
PROCESS_ENDED = _declare("process_ended", WARNING, "Server process {process} ended with {status}, starting it again")
CONNECTIONS_LIMITED = _declare("connections_limited", WARNING, "Connection limit of {limit} reached, {peer} refused")

WORKERS_GROWN = _declare("workers_grown", INFO, "Workers scaled up to {workers}, {waiting} jobs waiting")
WORKERS_SHRUNK = _declare("workers_shrunk", INFO, "Workers scaled down to {workers}, {waiting} jobs waiting")

# Configuration
CONFIG_WARNING = _declare("config_warning", WARNING, "Configuration: {warning}")
CONFIG_RELOADED = _declare("config_reloaded", INFO, "Configuration reloaded, changed: {keys}")
CONFIG_RESTART_NEEDED = _declare("config_restart_needed", WARNING, "Configuration: a restart is needed for {keys}")
CONFIG_REFUSED = _declare("config_refused", ERROR, "Configuration not reloaded: {reason}")
SECRET_CREATED = _declare("secret_created", INFO, "New secret written to {path}")

# Requests
REQUEST = _declare("request", INFO, "{method} {path} {status} in={bytes_in} out={bytes_out} {seconds} from {peer}")
REQUESTS_CUT = _declare("requests_cut", INFO, "{count} more requests were cut before they were whole")
REQUEST_MALFORMED = _declare("request_malformed", DEBUG, "Malformed request from {peer}: {reason}")
REQUEST_FAILED = _declare("request_failed", ERROR, "Request {request_id} failed: {reason}")
SIGNATURE_REFUSED = _declare("signature_refused", WARNING, "Signature refused from {peer}: {method} {path}: {reason}")
CONNECTION_STALLED = _declare("connection_stalled", INFO, "Connection of {peer} closed: {reason}")

# Uploads and stored files
UPLOAD_STORED = _declare("upload_stored", DEBUG, "Stored {path}, {size} bytes")
UPLOAD_CONFLICT = _declare("upload_conflict", INFO, "Upload refused, {path} exists with other bytes")
UPLOAD_CUT = _declare("upload_cut", INFO, "Upload of {path} cut after {received} bytes: {reason}")
STORAGE_FULL = _declare("storage_full", WARNING, "No space left for {size} bytes: {reason}")
STORAGE_FAILED = _declare("storage_failed", ERROR, "Storage failed on {path}: {reason}")
FILE_EXPIRED = _declare("file_expired", INFO, "Deleted {path}, {size} bytes: {reason}")
FILE_DELETED = _declare("file_deleted", INFO, "Deleted {path} on request: {reason}")
STORAGE_READ_ONLY = _declare(
    "storage_read_only", ERROR, "Storage takes no more uploads until a restart, {syncs_failed} syncs failed"
)
SYNC_FAILED = _declare("sync_failed", ERROR, "Sync of {what} failed: {error}")
COMMIT_FAILED = _declare("commit_failed", ERROR, "Publishing failed: {error}")
METADATA_FLUSH_FAILED = _declare("metadata_flush_failed", ERROR, "{rows} rows of metadata not written: {error}")
PUBLISH_CALLBACK_FAILED = _declare("publish_callback_failed", ERROR, "Answer to a publish failed: {error}")
PUBLISHES_ABANDONED = _declare("publishes_abandoned", ERROR, "{count} uploads not published before the end")
EXPIRY_HELD = _declare(
    "expiry_held", WARNING, "No files are deleted for a while, the clock jumped by {seconds} seconds: {reason}"
)
EXPIRY_FAILED = _declare("expiry_failed", ERROR, "Old files not deleted: {error}")
STORE_REPAIRED = _declare("store_repaired", WARNING, "Store: {code} at {path} repaired")

# Network changes and upload sessions, in the words of the network resilience guide
NETWORK_CHANGED = _declare("network_changed", INFO, "Network change detected")
UPLOADS_PAUSED = _declare("uploads_paused", INFO, "Pausing all active uploads due to network change")
UPLOADS_RESUMED = _declare("uploads_resumed", INFO, "Resuming all paused uploads")
SESSIONS_ACTIVE = _declare("sessions_active", INFO, "Active upload sessions: {count}")
RESILIENT_UPLOADS = _declare("resilient_uploads", INFO, "Network resilience: {count} uploads active")
ADDRESSES_VANISHED = _declare(
    "addresses_vanished", INFO, "Closed {connections} connections to addresses that this machine has no more"
)
NETWORK_WATCH_LIMITED = _declare(
    "network_watch_limited", WARNING, "Network changes are noticed by looking only: {reason}"
)
NETWORK_UNREADABLE = _declare("network_unreadable", WARNING, "The network cannot be looked at: {reason}")
UPLOAD_EXPIRED = _declare("upload_expired", INFO, "Upload {upload} expired")
UPLOAD_LOST = _declare("upload_lost", ERROR, "Upload {upload} lost, its {received} bytes are gone from the storage")
UPLOAD_HASH_FAILED = _declare("upload_hash_failed", WARNING, "Upload {upload} not hashed yet: {error}")
PUBLISH_PUT_OFF = _declare("publish_put_off", WARNING, "Upload {upload} not published yet: {reason}")
TICKET_NOT_GIVEN_BACK = _declare("ticket_not_given_back", WARNING, "The use of a ticket was not given back: {error}")
DRAFT_SWEPT = _declare("draft_swept", INFO, "Bytes of no upload deleted: {upload}")
SESSIONS_SWEEP_FAILED = _declare("sessions_sweep_failed", ERROR, "Upload sessions not looked through: {reason}")
SESSIONS_NOT_WRITTEN = _declare("sessions_not_written", ERROR, "{changes} changes of sessions not written: {error}")
SESSIONS_WRITTEN_AGAIN = _declare("sessions_written_again", INFO, "Changes of sessions are written again")
SESSION_CHANGE_FAILED = _declare("session_change_failed", ERROR, "A change of a session failed: {error}")
SESSION_CALLBACK_FAILED = _declare("session_callback_failed", ERROR, "Answer to a change of a session failed: {error}")
REDIS_LOST = _declare("redis_lost", WARNING, "Redis is not there, sessions go on from the disk: {error}")
REDIS_BACK = _declare("redis_back", INFO, "Redis is there")
REDIS_SWEEP_FAILED = _declare("redis_sweep_failed", WARNING, "Redis was not brought up to date: {error}")
COORDINATOR_CALLBACK_FAILED = _declare(
    "coordinator_callback_failed", ERROR, "A message of another server failed: {error}"
)
WORKERS_FULL = _declare("workers_full", WARNING, "{waiting} jobs wait for workers, uploads are held")
WORKERS_FREE = _declare("workers_free", INFO, "Workers have caught up, uploads go on")
