"""The settings: one frozen class a section, one field a key, and everything known about a key in one place.

The documentation, the commented file of `init`, the loader and the reload table are all made from, or tested
against, these fields. Sizes are bytes, durations are seconds.
"""

# ruff: noqa: RUF009 - `_setting` returns a dataclass field, only with what else is known about the key

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from hmac_file_server.config import kinds
from hmac_file_server.config.kinds import Kind
from hmac_file_server.config.secrets import Secret
from hmac_file_server.config.sizes import GIB, KIB

_EMPTY: Any = object()


def _setting(
    default: Any, kind: Kind, text: str, *, live: bool = False, planned: bool = False, empty: Any = _EMPTY
) -> Any:
    """A key: its default as one would write it, its kind, what it does.

    `live`: SIGHUP can apply it. `planned`: it is checked, but this release has nothing that uses it.
    """
    value = kind.read(default) if empty is _EMPTY else empty
    if kind is kinds.PATH:
        value = Path(value)
    # A URL may hold a password, and settings end up in tracebacks.
    shown = kind is not kinds.REDIS_URL
    return field(default=value, repr=shown, metadata={"kind": kind, "text": text, "live": live, "planned": planned})


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where it listens, what it stores, how much it takes."""

    listen_address: tuple[str, ...] = _setting(
        "127.0.0.1:8080",
        kinds.ADDRESSES,
        "Addresses of the upload server: IPv4, [IPv6], host names or unix:/path; one or a list.",
    )
    base_path: tuple[str, ...] = _setting(
        ["/", "/upload/"],
        kinds.PREFIXES,
        "URL prefixes of stored files; the longest that matches is taken off the path.",
    )
    storage_path: Path = _setting(
        "./data",
        kinds.PATH,
        "Folder of the stored files; relative to the folder of the file that sets it.",
    )
    processes: int | Literal["auto"] = _setting(
        "auto",
        kinds.PROCESSES,
        "Server processes that share the addresses; auto picks by the number of cores.",
    )
    max_upload_size: int = _setting(
        "10GB", kinds.size(1), "Largest file taken, whatever a signature allows.", live=True
    )
    min_free_bytes: int = _setting(
        "1GB",
        kinds.size(0),
        "Space that uploads leave free on the file system; below it they get 507.",
        live=True,
    )
    file_ttl: float | None = _setting(
        "off", kinds.optional_duration(1.0), "Age at which stored files are deleted.", live=True
    )
    trusted_proxies: tuple[str, ...] = _setting(
        [],
        kinds.NETWORKS,
        'Proxies whose X-Forwarded-For is believed; "unix:" stands for peers on Unix sockets.',
        live=True,
    )
    networkevents: bool = _setting(True, kinds.SWITCH, "Watch network changes and hold running uploads over them.")
    enable_dynamic_workers: bool = _setting(True, kinds.SWITCH, "Let the worker pool grow and shrink with its queue.")
    worker_scale_up_thresh: int = _setting(
        50, kinds.whole_number(1, 100_000), "Queue length at which a worker is added."
    )
    worker_scale_down_thresh: int = _setting(
        10, kinds.whole_number(0, 100_000), "Queue length at which a worker is given back."
    )
    mptcp: bool = _setting(
        True, kinds.SWITCH, "Offer Multipath TCP, so that a connection survives a change of network."
    )
    tls_certificate: Path | None = _setting(
        "", kinds.OPTIONAL_PATH, "Certificate chain (PEM) for HTTPS without a proxy.", live=True, empty=None
    )
    tls_key: Path | None = _setting(
        "", kinds.OPTIONAL_PATH, "Private key (PEM) of the certificate.", live=True, empty=None
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """The pool for what blocks: syncs, publishing, hashing."""

    numworkers: int = _setting(4, kinds.whole_number(1, 1024), "Workers that are always there.")
    max_workers: int = _setting(32, kinds.whole_number(1, 1024), "Most workers under load.")
    uploadqueuesize: int = _setting(
        50, kinds.whole_number(1, 100_000), "Jobs that may wait for a worker before uploads are held."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploads:
    """What may be uploaded and how."""

    chunked_uploads_enabled: bool = _setting(
        True, kinds.SWITCH, "Offer the chunk protocol at /upload/chunked.", live=True
    )
    resumable_uploads_enabled: bool = _setting(
        True, kinds.SWITCH, "Offer tus and the IETF resumable upload protocol.", live=True
    )
    interim_responses: bool = _setting(
        True,
        kinds.SWITCH,
        "Tell clients of the IETF protocol where to resume, and how far they are, while they send (104).",
        live=True,
    )
    chunk_size: int = _setting(
        "5MB", kinds.size(KIB, 5 * GIB), "Chunk size that new upload sessions are told.", live=True
    )
    max_resumable_age: float = _setting(
        "24h",
        kinds.duration(1.0),
        "Time without a byte after which an unfinished upload is dropped.",
        live=True,
    )
    max_sessions_per_owner: int = _setting(
        1000,
        kinds.whole_number(1, 1_000_000),
        "Unfinished upload sessions one owner may have.",
        live=True,
    )
    allowed_extensions: tuple[str, ...] = _setting(
        [],
        kinds.EXTENSIONS,
        "File name extensions that may be uploaded; an empty list allows all.",
        live=True,
    )
    durability: Literal["full", "relaxed"] = _setting(
        "full",
        kinds.choice("full", "relaxed"),
        "full: an upload is acknowledged when it is on the disk; relaxed: when the kernel has it.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long a peer may take."""

    readtimeout: float = _setting("4800s", kinds.duration(1.0), "Bound on receiving one whole request.", live=True)
    writetimeout: float = _setting("4800s", kinds.duration(1.0), "Bound on sending one whole answer.", live=True)
    idletimeout: float = _setting(
        "4800s", kinds.duration(1.0), "Time a kept-alive connection may wait for its next request.", live=True
    )
    header_timeout: float = _setting("15s", kinds.duration(0.1), "Bound on receiving a request's head.", live=True)
    stall_timeout: float = _setting(
        "30s",
        kinds.duration(0.1),
        "Time without one byte of a body after which the connection is closed.",
        live=True,
    )
    min_rate: int = _setting(
        "64B", kinds.rate(), "Least bytes a second of a body, after a grace; 0 is no bound.", live=True
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Deduplication:
    """Equal contents are stored once."""

    enabled: bool = _setting(True, kinds.SWITCH, "Store equal contents once.", live=True)
    maxsize: int = _setting("1GB", kinds.size(0), "Largest file that is deduplicated.", live=True)
    hash: Literal["blake3", "sha256"] = _setting(
        "blake3", kinds.choice("blake3", "sha256"), "Hash that tells equal contents."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """Who may upload."""

    secret: tuple[Secret, ...] = _setting(
        "",
        kinds.SECRETS,
        "Shared secret of the signatures; of a list the first signs and all verify. "
        "Without one, the server makes its own in the storage folder.",
        live=True,
        empty=(),
    )
    jwt_secret: tuple[Secret, ...] = _setting(
        "", kinds.SECRETS, "Secret of JSON Web Tokens, when it is not the one above.", live=True, empty=()
    )
    delete_secret: Secret | None = _setting(
        "",
        kinds.SECRET,
        "Metronome's http_file_delete_secret; without one, DELETE with a token is refused.",
        live=True,
        empty=None,
    )
    schemes: tuple[str, ...] = _setting("all", kinds.SCHEMES, "Signature schemes that are accepted.", live=True)
    strict_signatures: bool = _setting(
        False,
        kinds.SWITCH,
        "Accept only signatures that bind method, size and expiry, not an X-Signature over the path alone.",
        live=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Redis:
    """Upload sessions shared by several machines."""

    enabled: bool = _setting(
        False, kinds.SWITCH, "Mirror upload sessions to Redis, and share the storage with other servers."
    )
    url: str = _setting("redis://127.0.0.1:6379/0", kinds.REDIS_URL, "The Redis server.")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkResilience:
    """What happens when the network changes."""

    stabilization_delay: float = _setting(
        "2s", kinds.duration(0.0), "Quiet time after a change before uploads go on.", live=True
    )
    poll_interval: float = _setting(
        "5s",
        kinds.duration(0.1),
        "How often the interfaces are looked at, whatever the kernel tells.",
        live=True,
    )
    max_pause: float = _setting(
        "30s", kinds.duration(0.0), "Longest hold of uploads over one change; 0 holds nothing.", live=True
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Logging:
    """What is written to the log."""

    level: Literal["debug", "info", "warning", "error"] = _setting(
        "info",
        kinds.choice("debug", "info", "warning", "error", warn="warning", trace="debug", fatal="error"),
        "Least severity that is logged; requests are logged at info.",
        live=True,
    )
    format: Literal["text", "json"] = _setting(
        "text", kinds.choice("text", "json"), "text, or one JSON object a line.", live=True
    )
    file: Path | None = _setting(
        "",
        kinds.OPTIONAL_PATH,
        "Log file, opened anew at SIGHUP; empty is standard error.",
        live=True,
        empty=None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Admin:
    """The listener for metrics and administration."""

    listen_address: tuple[str, ...] = _setting(
        "127.0.0.1:9090", kinds.OPTIONAL_ADDRESSES, "Addresses of the admin listener; off is none.", planned=True
    )
    token: Secret | None = _setting(
        "",
        kinds.SECRET,
        "Bearer token of the admin listener; needed where others than this machine reach it.",
        live=True,
        empty=None,
        planned=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set; `Settings()` is the embedded defaults."""

    server: Server = field(default_factory=Server)
    workers: Workers = field(default_factory=Workers)
    uploads: Uploads = field(default_factory=Uploads)
    timeouts: Timeouts = field(default_factory=Timeouts)
    deduplication: Deduplication = field(default_factory=Deduplication)
    security: Security = field(default_factory=Security)
    redis: Redis = field(default_factory=Redis)
    network_resilience: NetworkResilience = field(default_factory=NetworkResilience)
    logging: Logging = field(default_factory=Logging)
    admin: Admin = field(default_factory=Admin)


@dataclass(frozen=True, slots=True)
class Key:
    """One setting as the loader, the documentation and the reload table see it."""

    section: str
    name: str
    kind: Kind
    default: Any
    text: str
    live: bool
    planned: bool

    def __str__(self) -> str:
        return f"{self.section}.{self.name}"

    @property
    def secret(self) -> bool:
        """Whether the value must never be shown; such a key may also be given as `<name>_file`."""
        return self.kind in {kinds.SECRETS, kinds.SECRET}

    def value(self, settings: Settings) -> Any:
        """The key's value in `settings`."""
        return getattr(getattr(settings, self.section), self.name)


SECTIONS: MappingProxyType[str, type] = MappingProxyType(
    {
        "server": Server,
        "workers": Workers,
        "uploads": Uploads,
        "timeouts": Timeouts,
        "deduplication": Deduplication,
        "security": Security,
        "redis": Redis,
        "network_resilience": NetworkResilience,
        "logging": Logging,
        "admin": Admin,
    }
)
"""Section name to class, in the order in which they are shown."""


def _keys() -> Iterator[Key]:
    for section, cls in SECTIONS.items():
        for item in fields(cls):
            known = item.metadata
            yield Key(section, item.name, known["kind"], item.default, known["text"], known["live"], known["planned"])


KEYS: MappingProxyType[str, Key] = MappingProxyType({str(key): key for key in _keys()})
"""Every key by its dotted name."""
