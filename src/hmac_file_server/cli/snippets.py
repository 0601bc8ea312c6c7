"""What the neighbours of the server need in their configurations, filled with our values.

Prosody (mod_http_upload_external, mod_http_file_share), ejabberd (mod_http_upload), Metronome
(mod_http_upload_external), Caddy, nginx and systemd. docs/installation.md holds the same texts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Site:
    """One installation.

    `url` is the public base URL and ends in "/"; `backend` is host:port of our listener; `size_limit` bytes;
    paths are absolute; `program` is the path of the hmac-file-server command.
    """

    url: str
    xmpp_domain: str
    backend: str
    secret: str
    delete_secret: str
    size_limit: int
    config_file: str
    storage_path: str
    program: str

    @property
    def host(self) -> str:
        """The public host name."""
        return urlsplit(self.url).hostname or ""


def prosody_v1(site: Site) -> str:
    """mod_http_upload_external, protocol v1 (size is signed)."""
    return f"""\
Component "{_upload_component(site)}" "http_upload_external"
    http_upload_external_base_url = {_lua(site.url)}
    http_upload_external_secret = {_lua(site.secret)}
    http_upload_external_file_size_limit = {site.size_limit}
"""


def prosody_v2(site: Site) -> str:
    """mod_http_upload_external, protocol v2 (size and media type are signed)."""
    return prosody_v1(site) + '    http_upload_external_protocol = "v2"\n'


def prosody_jwt(site: Site) -> str:
    """mod_http_file_share with an external server (needs Prosody 0.12)."""
    return f"""\
Component "{_upload_component(site)}" "http_file_share"
    http_file_share_base_url = {_lua(site.url)}
    http_file_share_secret = {_lua(site.secret)}
    http_file_share_size_limit = {site.size_limit}
"""


def ejabberd(site: Site) -> str:
    """mod_http_upload with external_secret; ejabberd wants the URL without its last slash."""
    return f"""\
modules:
  mod_http_upload:
    put_url: {_yaml(site.url.rstrip("/"))}
    get_url: {_yaml(site.url.rstrip("/"))}
    external_secret: {_yaml(site.secret)}
    max_size: {site.size_limit}
"""


def metronome(site: Site) -> str:
    """mod_http_upload_external with deletion."""
    return f"""\
Component "{_upload_component(site)}" "http_upload_external"
    http_file_external_url = {_lua(site.url)}
    http_file_external_delete_url = {_lua(site.url)}
    http_file_secret = {_lua(site.secret)}
    http_file_delete_secret = {_lua(site.delete_secret)}
    http_file_size_limit = {site.size_limit}
"""


def caddy(site: Site) -> str:
    """HTTPS, HTTP/2 and HTTP/3 in front; Caddy streams request bodies by itself."""
    return f"""\
{site.host} {{
	reverse_proxy {site.backend} {{
		flush_interval -1
	}}
}}
"""


def nginx(site: Site) -> str:
    """HTTPS in front, bodies passed on as they come, addresses of clients told."""
    return f"""\
upstream hmac_file_server {{
    server {site.backend};
    keepalive 16;
}}

server {{
    listen 443 ssl http2;
    listen [::]:443 ssl http2;
    server_name {site.host};
    ssl_certificate     /etc/letsencrypt/live/{site.host}/fullchain.pem;
    ssl_certificate_key /etc/letsencrypt/live/{site.host}/privkey.pem;

    # The server has its own limits; nginx must neither refuse, nor store, nor repeat an upload.
    client_max_body_size 0;
    client_body_timeout 120s;

    location / {{
        proxy_pass http://hmac_file_server;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $host;
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_request_buffering off;
        proxy_buffering off;
        proxy_next_upstream off;
        proxy_read_timeout 4800s;
        proxy_send_timeout 4800s;
    }}
}}
"""


def systemd(site: Site) -> str:
    """A unit that may do nothing but serve and write its storage folder."""
    return f"""\
# /etc/systemd/system/hmac-file-server.service
# adduser --system --group --no-create-home --home /nonexistent hmac-file-server
# install -d -o hmac-file-server -g hmac-file-server -m 0750 {site.storage_path}
# chown hmac-file-server:hmac-file-server {site.config_file}
[Unit]
Description=hmac-file-server
After=network-online.target
Wants=network-online.target

[Service]
Type=exec
User=hmac-file-server
Group=hmac-file-server
ExecStart={site.program} serve --config {site.config_file}
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=2s
TimeoutStopSec=45s
UMask=0077
LimitNOFILE=65536
LimitCORE=0

ReadWritePaths={site.storage_path}
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=true
PrivateDevices=true
PrivateUsers=true
PrivateIPC=true
ProtectClock=true
ProtectControlGroups=true
ProtectHostname=true
ProtectKernelLogs=true
ProtectKernelModules=true
ProtectKernelTunables=true
ProtectProc=invisible
ProcSubset=pid
NoNewPrivileges=true
CapabilityBoundingSet=
AmbientCapabilities=
DevicePolicy=closed
KeyringMode=private
LockPersonality=true
MemoryDenyWriteExecute=true
RemoveIPC=true
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=true
RestrictRealtime=true
RestrictSUIDSGID=true
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""


SNIPPETS: MappingProxyType[str, tuple[str, Callable[[Site], str]]] = MappingProxyType(
    {
        "prosody-v1": ("Prosody, mod_http_upload_external (v1: the size is signed)", prosody_v1),
        "prosody-v2": ("Prosody, mod_http_upload_external (v2: size and type are signed)", prosody_v2),
        "prosody-jwt": ("Prosody 0.12 or later, mod_http_file_share", prosody_jwt),
        "ejabberd": ("ejabberd, mod_http_upload", ejabberd),
        "metronome": ("Metronome, mod_http_upload_external", metronome),
        "caddy": ("Caddy", caddy),
        "nginx": ("nginx", nginx),
        "systemd": ("systemd", systemd),
    }
)
"""Name to (title, text)."""


def _upload_component(site: Site) -> str:
    return site.host if site.host.endswith("." + site.xmpp_domain) else f"upload.{site.xmpp_domain}"


def _lua(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _yaml(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
