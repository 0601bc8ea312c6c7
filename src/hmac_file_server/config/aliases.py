"""Keys of the Go hmac-file-server and of its documentation, by the spelling without case, "_" and "-".

`RENAMED` keys mean one of ours. `COMBINED` keys mean something together with others; the loader knows what.
`IGNORED` and `IGNORED_SECTIONS` are known and have no meaning here: each says why in the words of a warning.
"""

from types import MappingProxyType

RENAMED: MappingProxyType[str, str] = MappingProxyType(
    {
        "server.uploadpath": "server.storage_path",
        "server.storagedir": "server.storage_path",
        "storage.path": "server.storage_path",
        "storage.storagepath": "server.storage_path",
        "server.listenport": "server.listen_address",
        "server.port": "server.listen_address",
        "server.listen": "server.listen_address",
        "server.maxfilesize": "server.max_upload_size",
        "uploads.maxfilesize": "server.max_upload_size",
        "uploads.maxuploadsize": "server.max_upload_size",
        "uploads.networkevents": "server.networkevents",
        "network.networkevents": "server.networkevents",
        "uploads.ttl": "server.file_ttl",
        "workers.autoscaling": "server.enable_dynamic_workers",
        "workers.enabledynamicworkers": "server.enable_dynamic_workers",
        "workers.workerscaleupthresh": "server.worker_scale_up_thresh",
        "workers.workerscaledownthresh": "server.worker_scale_down_thresh",
        "server.tlscert": "server.tls_certificate",
        "server.baseurlpath": "server.base_path",
        "uploads.chunkeduploads": "uploads.chunked_uploads_enabled",
        "uploads.resumableuploads": "uploads.resumable_uploads_enabled",
        "uploads.sessiontimeout": "uploads.max_resumable_age",
        "uploads.sessionpersistenceduration": "uploads.max_resumable_age",
        "uploads.maxsessionage": "uploads.max_resumable_age",
        "timeouts.read": "timeouts.readtimeout",
        "timeouts.write": "timeouts.writetimeout",
        "timeouts.idle": "timeouts.idletimeout",
        "server.readtimeout": "timeouts.readtimeout",
        "server.writetimeout": "timeouts.writetimeout",
        "server.idletimeout": "timeouts.idletimeout",
        "deduplication.dedupenabled": "deduplication.enabled",
        "server.dedupenabled": "deduplication.enabled",
        "uploads.dedupe": "deduplication.enabled",
        "security.hmacsecret": "security.secret",
        "security.hmacsharedsecret": "security.secret",
        "security.sharedsecret": "security.secret",
        "server.hmacsecret": "security.secret",
        "server.secret": "security.secret",
        "auth.sharedsecret": "security.secret",
        "auth.hmacsharedsecret": "security.secret",
        "auth.secret": "security.secret",
        "hmac.secret": "security.secret",
        "hmacsharedsecret": "security.secret",
        "redis.redisenabled": "redis.enabled",
        "redis.redisurl": "redis.url",
        "sessionstore.redisurl": "redis.url",
        "networkresilience.detectioninterval": "network_resilience.poll_interval",
        "networkresilience.stabilizationtime": "network_resilience.stabilization_delay",
        "server.loglevel": "logging.level",
        "server.logfile": "logging.file",
        "logging.logfile": "logging.file",
        "logging.loglevel": "logging.level",
        "logging.logformat": "logging.format",
        "admin.auth.token": "admin.token",
    }
)

COMBINED: MappingProxyType[str, str] = MappingProxyType(
    {
        "server.bindip": "bind_ip",
        "server.interface": "bind_ip",
        "server.filettlenabled": "filettlenabled",
        "server.ttlenabled": "filettlenabled",
        "server.deduplicationenabled": "deduplication_enabled",
        "security.enablejwt": "enablejwt",
        "security.jwtenabled": "enablejwt",
        "redis.redisaddr": "redisaddr",
        "redis.address": "redisaddr",
        "redis.addr": "redisaddr",
        "redis.redispassword": "redispassword",
        "redis.password": "redispassword",
        "redis.redisdbindex": "redisdbindex",
        "redis.db": "redisdbindex",
        "admin.enabled": "admin_enabled",
    }
)

_METRICS = "metrics are served at admin.listen_address"
_ROTATE = "turn the log file with logrotate and SIGHUP"
_GRACE = "an expired signature is expired for everybody"
_WORKERS = "use workers.numworkers and workers.max_workers"
_NEVER = "the Go server has it and never uses it"

IGNORED: MappingProxyType[str, str] = MappingProxyType(
    {
        "server.unixsocket": 'use listen_address = "unix:/path/to/socket"',
        "server.filenaming": "files keep the path of their URL",
        "server.metricsenabled": _METRICS,
        "server.metricsport": _METRICS,
        "server.metricspath": _METRICS,
        "server.pidfile": "the service supervisor knows the process",
        "server.pidfilepath": "the service supervisor knows the process",
        "server.cleanuponexit": "there is no PID file",
        "server.cleanuponexitenabled": "there is no PID file",
        "server.cleanuponstart": "there is no PID file",
        "server.cleanupinterval": "old files are looked for as they fall due",
        "server.maxfileage": "use server.file_ttl",
        "server.maxheaderbytes": "a request head is limited to 64 KiB",
        "server.globalextensions": "use uploads.allowed_extensions",
        "server.forceprotocol": "server.listen_address says which addresses are used",
        "server.autoadjustworkers": _WORKERS,
        "server.precaching": _NEVER,
        "server.precache": _NEVER,
        "server.precacheworkers": _NEVER,
        "server.precacheinterval": _NEVER,
        "uploads.maxretries": "a client may retry as often as it wants",
        "uploads.retryfaileduploads": "a client may retry as often as it wants",
        "uploads.maxuploadretries": "a client may retry as often as it wants",
        "uploads.sessionpersistence": "upload sessions always survive a restart",
        "uploads.sessionrecoverytimeout": "use uploads.max_resumable_age",
        "uploads.clientreconnectwindow": "use uploads.max_resumable_age",
        "uploads.uploadslotttl": "whoever signs a URL says when it expires",
        "uploads.allowsessionresume": "use uploads.resumable_uploads_enabled",
        "uploads.detectduplicateuploads": "the same bytes again get the same answer",
        "uploads.mergeduplicatesessions": "the same bytes again get the same answer",
        "uploads.uploadtimeout": "use timeouts.readtimeout",
        "uploads.filenaming": "files keep the path of their URL",
        "security.jwtalgorithm": "HS256 is the only one accepted",
        "security.jwtexpiration": "whoever makes a token says when it expires",
        "security.tokengraceperiod": _GRACE,
        "security.mobilegraceperiod": _GRACE,
        "security.standbygraceperiod": _GRACE,
        "security.ultramaxgrace": _GRACE,
        "security.bearertokensenabled": "use security.schemes",
        "security.hmacenabled": "use security.schemes",
        "timeouts.shutdown": "running requests are finished within 30 seconds",
        "timeouts.shutdowntimeout": "running requests are finished within 30 seconds",
        "timeouts.handshaketimeout": "use timeouts.header_timeout",
        "timeouts.keepalivetimeout": "use timeouts.idletimeout",
        "deduplication.directory": "equal files are kept in the storage folder",
        "logging.maxsize": _ROTATE,
        "logging.maxbackups": _ROTATE,
        "logging.maxage": _ROTATE,
        "logging.compress": _ROTATE,
        "redis.redishealthcheckinterval": "Redis is watched all the time",
        "admin.pathprefix": "the admin listener has an address of its own: admin.listen_address",
        "admin.bind": "use admin.listen_address",
        "admin.auth.type": "the admin listener takes a bearer token: admin.token",
        "admin.auth.username": "the admin listener takes a bearer token: admin.token",
        "admin.auth.password": "the admin listener takes a bearer token: admin.token",
        "admin.auth.passwordhash": "the admin listener takes a bearer token: admin.token",
    }
)

_TEMPLATE = "the Go server does not read it either"

IGNORED_SECTIONS: MappingProxyType[str, str] = MappingProxyType(
    {
        "clamav": "uploads are NOT scanned for malware",
        "versioning": "a stored file is never replaced",
        "iso": "files are stored in folders, not in disk images",
        "build": "the version is the program's own",
        "downloads": "downloads are always resumable, and of any type",
        "clientnetworksupport": "an upload may go on from any address",
        "clientnetwork": "an upload may go on from any address",
        "sessionstore": "upload sessions are kept in the storage folder, or in [redis]",
        "ratelimit": "requests are NOT limited per minute",
        "keyrotation": "give several secrets in security.secret instead",
        "metadata": "file metadata is always kept in the storage folder",
        "audit": 'use logging.format = "json"',
        "validation": "contents are NOT checked against their type",
        "quotas": "quotas are NOT enforced; the XMPP server can do it",
        "compression": "files are served as they were uploaded",
        "networkinterfaces": _TEMPLATE,
        "performance": _TEMPLATE,
        "streaming": _TEMPLATE,
        "handoff": _TEMPLATE,
        "clientoptimization": _TEMPLATE,
        "monitoring": _METRICS,
        "metrics": _METRICS,
        "experimental": _TEMPLATE,
        "ejabberd": "the signature schemes of ejabberd work without it",
        "auth": "use [security]",
        "storage": "use server.storage_path",
        "network": _TEMPLATE,
        "queue": "use workers.uploadqueuesize",
        "xmpp": "the signature schemes of XMPP servers work without it",
        "file": _TEMPLATE,
    }
)

IGNORED_RESILIENCE = frozenset(
    {
        "fastdetection",
        "qualitymonitoring",
        "predictiveswitching",
        "mobileoptimizations",
        "qualitycheckinterval",
        "maxdetectioninterval",
        "multiinterfaceenabled",
        "interfacepriority",
        "autoswitchenabled",
        "switchthresholdlatency",
        "switchthresholdpacketloss",
        "qualitydegradationthreshold",
        "maxswitchattempts",
        "switchdetectioninterval",
        "enabled",
        "uploadresilience",
        "networkchangethreshold",
        "interfacestabilitytime",
        "uploadpausetimeout",
        "uploadretrytimeout",
        "rttwarningthreshold",
        "rttcriticalthreshold",
        "packetlosswarningthreshold",
        "packetlosscriticalthreshold",
    }
)
"""Keys of the Go server's [network_resilience]; ours are fewer, because an upload survives by itself."""


def folded(name: str) -> str:
    """The spelling by which keys are compared: no case, no "_", no "-"."""
    return name.lower().replace("_", "").replace("-", "")


def no_effect(path: str) -> tuple[str, str] | None:
    """(what, why) when a folded dotted path is known and has no meaning here; what is "key" or "section"."""
    why = IGNORED.get(path)
    if why is not None:
        return "key", why
    section, _, name = path.partition(".")
    if section == "networkresilience" and name in IGNORED_RESILIENCE:
        return "key", "uploads survive a change of network without it"
    if section == "logging" and name.startswith("log"):
        return "key", "use logging.level, logging.format and logging.file"
    if name and section in IGNORED_SECTIONS:
        return "section", IGNORED_SECTIONS[section]
    return None
