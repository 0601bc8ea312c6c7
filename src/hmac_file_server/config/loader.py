"""Loading: defaults < file < environment < --set, every value with its origin.

Environment names are HMAC_FILE_SERVER_SECTION__KEY; --set takes section.key=value. Keys match without case,
"_" and "-", so every spelling seen in the wild works; see `aliases` for the Go hmac-file-server's own keys.
"""

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hmac_file_server.config import addresses, aliases, kinds, secrets
from hmac_file_server.config.aliases import folded
from hmac_file_server.config.errors import ConfigError, printable
from hmac_file_server.config.model import KEYS, SECTIONS, Key, Settings
from hmac_file_server.config.secrets import Secret

ENVIRONMENT_PREFIX = "HMAC_FILE_SERVER_"
OWN_VARIABLES = frozenset(
    {f"{ENVIRONMENT_PREFIX}{name}" for name in ("CONFIG", "LINK", "SECRET", "TICKET")},
)
"""Variables with the prefix that are no settings: the file, and the secret for `sign`, `link` and `upload`."""

DEFAULT_ORIGIN = "default"

_DEFAULTS, _FILE, _ENVIRONMENT, _OVERRIDE = range(4)

_NOT_ON_COMMAND_LINE = (
    "a password is not taken from the command line, where everybody can read it; "
    "use the file, or the environment (HMAC_FILE_SERVER_REDIS__URL)"
)

_BY_FOLDED = {f"{folded(key.section)}.{folded(key.name)}": name for name, key in KEYS.items()}


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, where each value came from ("config.toml:12"), and what an operator should know."""

    settings: Settings
    origins: Mapping[str, str]
    warnings: tuple[str, ...]
    path: Path | None = None


@dataclass(frozen=True, slots=True)
class _Given:
    """One value as it was given, before it is looked at."""

    path: tuple[str, ...]
    raw: Any
    layer: int
    origin: str
    file: str | None = None
    line: int | None = None

    @property
    def name(self) -> str:
        return ".".join(self.path)

    @property
    def folded(self) -> str:
        return ".".join(folded(part) for part in self.path)

    def error(self, message: str, key: str, code: str = "value") -> ConfigError:
        file = self.file if self.file is not None else self.origin
        return ConfigError(message, file, self.line, key, code)


def load(path: Path | None, *, environ: Mapping[str, str], overrides: Sequence[str] = ()) -> Loaded:
    """Read the file (None: embedded defaults), the environment and the overrides.

    Raises ConfigError for the first thing that is wrong; `ConfigError.all` has every one.
    """
    build = _Build(path)
    if path is not None:
        build.take(_from_file(path, build))
    build.take(_from_environment(environ, build))
    build.take(_from_overrides(overrides))
    return build.finish()


def with_secret(loaded: Loaded) -> tuple[Loaded, Path | None]:
    """The same with a secret: its own, or that of the storage folder, made when there is none.

    The path is that of a secret that was made just now. Raises ConfigError (code "secret") when the storage
    folder cannot be read or written.
    """
    if loaded.settings.security.secret:
        return loaded, None
    storage = loaded.settings.server.storage_path
    path = secrets.default_file(storage)
    try:
        secret, made = secrets.ensure(storage)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(f"no secret is set, and none can be kept there: {reason}", str(path), code="secret") from None
    security = replace(loaded.settings.security, secret=(secret,))
    origins = {**loaded.origins, "security.secret": str(path)}
    settings = replace(loaded.settings, security=security)
    return replace(loaded, settings=settings, origins=origins), path if made else None


def _from_file(path: Path, build: "_Build") -> list[_Given]:
    from hmac_file_server.config import document

    name = str(path)
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(1 << 20)
            if file.read(1):
                raise ConfigError("a configuration of more than 1 MiB", name, code="file")
        text = content.decode()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or error}", name, code="file") from None
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError("no UTF-8", name, line, code="syntax") from None
    parsed = document.parse(text, name)
    for table, line, first in parsed.repeated:
        build.warnings.append(f"{name}:{line}: [{table}] is there already in line {first}; both are used as one")
    build.file_readable_by_all = bool(stat.S_IMODE(mode) & stat.S_IROTH)
    return [_Given(item.path, item.value, _FILE, f"{path.name}:{item.line}", name, item.line) for item in parsed.items]


def _from_environment(environ: Mapping[str, str], build: "_Build") -> Iterable[_Given]:
    for name in sorted(environ):
        if not name.startswith(ENVIRONMENT_PREFIX) or name in OWN_VARIABLES:
            continue
        path = tuple(name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"))
        if len(path) < 2 or "" in path:
            build.warnings.append(f"environment {name}: no setting; settings are {ENVIRONMENT_PREFIX}SECTION__KEY")
            continue
        yield _Given(path, environ[name], _ENVIRONMENT, f"environment {name}")


def _from_overrides(overrides: Sequence[str]) -> Iterable[_Given]:
    for text in overrides:
        name, equals, value = text.partition("=")
        path = tuple(part.strip() for part in name.split("."))
        if not equals or len(path) < 2 or "" in path:
            raise ConfigError(f"{_cut(name)!r} is not of the form section.key=value", "--set", code="override")
        yield _Given(path, value.strip(), _OVERRIDE, f"--set {name.strip()}")


class _Build:
    """One load: gathers values by key, then makes settings of them."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.warnings: list[str] = []
        self.errors: list[ConfigError] = []
        self.file_readable_by_all = False
        self._values: dict[str, Any] = {}
        self._given: dict[str, _Given] = {}
        self._combined: dict[str, tuple[_Given, Any]] = {}
        self._secret_files: dict[str, tuple[_Given, tuple[Secret, ...]]] = {}
        self._ignored: dict[tuple[str, str], list[_Given]] = {}

    def take(self, given: Iterable[_Given]) -> None:
        for one in given:
            self._take(one)

    def _take(self, given: _Given) -> None:
        spelled = given.folded
        name = _BY_FOLDED.get(spelled) or aliases.RENAMED.get(spelled)
        if name is not None:
            self._set(KEYS[name], given)
        elif spelled in aliases.COMBINED:
            self._combine(aliases.COMBINED[spelled], given)
        elif (key := _secret_key_of_file(spelled)) is not None:
            self._read_secret_files(key, given)
        elif (ignored := aliases.no_effect(spelled)) is not None:
            what, why = ignored
            label = given.name if what == "key" else given.path[0]
            self._ignored.setdefault((label, why), []).append(given)
        elif given.raw == {} and (spelled in {folded(s) for s in SECTIONS} or aliases.no_effect(spelled + ".x")):
            pass  # an empty inline table of a known section says nothing
        else:
            self.warnings.append(f"{_where(given)}: unknown key {given.name}, ignored{_did_you_mean(given)}")

    def _set(self, key: Key, given: _Given) -> None:
        name = str(key)
        if key.secret and given.layer == _OVERRIDE:
            message = f"secrets are not taken from the command line, where everybody can read them; use {name}_file"
            self.errors.append(given.error(message, name, "override"))
            return
        raw = given.raw
        if name in {"server.listen_address", "admin.listen_address"} and isinstance(raw, int):
            raw = str(raw) if not isinstance(raw, bool) else raw
        try:
            value = key.kind.read(_listed(raw, key, given))
        except ValueError as error:
            self.errors.append(given.error(_refused(key, raw, str(error)), name))
            return
        if key.kind is kinds.REDIS_URL and given.layer == _OVERRIDE and kinds.has_password(value):
            self.errors.append(given.error(_NOT_ON_COMMAND_LINE, name, "override"))
            return
        if key.kind in {kinds.PATH, kinds.OPTIONAL_PATH}:
            value = self._absolute(value, given) if value else None
        if key.secret:
            if not self._usable(key, value, given):
                return
            self._forget_below(name, given.layer)
        before = self._given.get(name)
        if before is not None and before.layer == given.layer:
            self.warnings.append(
                f"{_where(given)}: {given.name} is set already in {_where(before)} as {before.name}; "
                "the last one counts"
            )
        self._values[name] = value
        self._given[name] = given

    def _combine(self, name: str, given: _Given) -> None:
        kind = {
            "bind_ip": kinds.TEXT,
            "redisaddr": kinds.TEXT,
            "redispassword": kinds.TEXT,
            "redisdbindex": kinds.whole_number(0, 1023),
        }.get(name, kinds.SWITCH)
        try:
            value = kind.read(given.raw)
        except ValueError as error:
            shown = "" if name in {"redispassword", "redisaddr"} else f" = {_cut(repr(given.raw))}"
            self.errors.append(given.error(f"{error}{shown}; allowed: {kind.allowed}", given.name))
            return
        login = name == "redispassword" or (name == "redisaddr" and "://" in value and kinds.has_password(value))
        if login and value and given.layer == _OVERRIDE:
            self.errors.append(given.error(_NOT_ON_COMMAND_LINE, given.name, "override"))
            return
        self._combined[name] = (given, value)

    def _read_secret_files(self, key: Key, given: _Given) -> None:
        name = f"{key}_file"
        try:
            paths = kinds.texts(str, "a path, or a list of paths", empty=False).read(given.raw)
        except ValueError as error:
            self.errors.append(given.error(f"{error}; allowed: a path, or a list of paths", name))
            return
        found: list[Secret] = []
        for text in paths:
            path = self._absolute(text, given)
            try:
                secret = secrets.read(path)
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else str(error)
                self.errors.append(given.error(f"{path}: {reason}", name, "file"))
                continue
            if self._usable(key, (secret,), given):
                found.append(secret)
        self._forget_below(str(key), given.layer)
        if found:
            self._secret_files[str(key)] = (given, tuple(dict.fromkeys(found)))

    def _forget_below(self, name: str, layer: int) -> None:
        """A secret of a higher layer replaces those of the lower ones, however they were given."""
        if name in self._given and self._given[name].layer < layer:
            del self._given[name], self._values[name]
        if name in self._secret_files and self._secret_files[name][0].layer < layer:
            del self._secret_files[name]

    def _usable(self, key: Key, value: Any, given: _Given) -> bool:
        if value == Secret("") and key.kind is kinds.SECRET:
            return True  # "" is how one says "none" of a secret that is optional
        many = value if isinstance(value, tuple) else (value,)
        for secret in many:
            reason = secrets.refusal(secret)
            if reason is not None:
                self.errors.append(given.error(reason, str(key), "secret"))
                return False
        return True

    def _absolute(self, text: str, given: _Given) -> Path:
        # A relative path in a file is relative to that file, so that it means one place from wherever it is run.
        if given.layer == _FILE and self.path is not None:
            return Path(os.path.normpath(self.path.absolute().parent / text))
        return Path(os.path.abspath(text))

    # What is left: keys that mean something only together, defaults, and what the values say to each other.

    def finish(self) -> Loaded:
        self._apply_secret_files()
        self._apply_combined()
        self._note_ignored()
        self._note_planned()
        self._check_together()
        if self.errors:
            first, *others = self.errors
            first.others = tuple(others)
            raise first
        settings = Settings()
        changed: dict[str, dict[str, Any]] = {}
        for name, value in self._values.items():
            key = KEYS[name]
            changed.setdefault(key.section, {})[key.name] = value
        for section, values in changed.items():
            settings = replace(settings, **{section: replace(getattr(settings, section), **values)})
        if "server.storage_path" not in self._given:
            storage = Path(os.path.abspath(settings.server.storage_path))
            settings = replace(settings, server=replace(settings.server, storage_path=storage))
        origins = dict.fromkeys(KEYS, DEFAULT_ORIGIN)
        origins.update({name: given.origin for name, given in self._given.items()})
        return Loaded(settings, origins, tuple(printable(text) for text in self.warnings), self.path)

    def _value(self, name: str) -> Any:
        return self._values.get(name, KEYS[name].default)

    def _put(self, name: str, value: Any, given: _Given) -> None:
        self._values[name] = value
        self._given[name] = given

    def _apply_secret_files(self) -> None:
        inline = self._given.get("security.secret")
        if self.file_readable_by_all and inline is not None and inline.layer == _FILE:
            self.warnings.append(f"{inline.file}: a secret is in it and everybody may read it; chmod 600 it")
        for name, (given, found) in self._secret_files.items():
            if KEYS[name].kind is kinds.SECRET:
                if name in self._values:
                    message = f"{name} and {name}_file are both set; leave one out"
                    self.errors.append(given.error(message, name, "conflict"))
                elif len(found) != 1:
                    self.errors.append(given.error("one file only", f"{name}_file"))
                else:
                    self._put(name, found[0], given)
            else:
                self._put(name, tuple(dict.fromkeys((*self._values.get(name, ()), *found))), given)
        for name, key in KEYS.items():
            if key.kind is kinds.SECRET and self._values.get(name) == Secret(""):
                self._values[name] = None
        for name in ("security.secret", "security.jwt_secret"):
            length = secrets.short(self._values.get(name, ()))
            if length is not None:
                self.warnings.append(
                    f"{_where(self._given[name])}: {name} is only {length} bytes long; take "
                    f"{secrets.ADVISED_LENGTH} or more, for example from: openssl rand -hex 32"
                )

    def _apply_combined(self) -> None:
        self._apply_bind_ip()
        self._apply_file_ttl()
        self._apply_redis()
        if "deduplication_enabled" in self._combined:
            given, on = self._combined["deduplication_enabled"]
            # The Go server needs both switches on; so one that is off turns it off.
            if not on or "deduplication.enabled" not in self._values:
                self._put("deduplication.enabled", on, given)
        if "admin_enabled" in self._combined:
            given, on = self._combined["admin_enabled"]
            if not on:
                self._put("admin.listen_address", (), given)
        if "enablejwt" in self._combined:
            given, on = self._combined["enablejwt"]
            if not on and self._values.pop("security.jwt_secret", ()):
                del self._given["security.jwt_secret"]
                self.warnings.append(f"{_where(given)}: security.jwt_secret is not used, because {given.name} is false")
            elif on:
                self.warnings.append(
                    f"{_where(given)}: {given.name}: tokens are always accepted here, but only with claims "
                    "that name the file or the limits of the upload; see docs/configuration.md"
                )

    def _apply_bind_ip(self) -> None:
        listen = self._given.get("server.listen_address")
        bind = self._combined.get("bind_ip")
        host = bind[1].strip() if bind is not None else ""
        if bind is not None and host:
            given = bind[0]
            texts = _port_texts(listen.raw) if listen is not None else ["8080"]
            if all(addresses.is_port_only(text) for text in texts):
                try:
                    bound = tuple(
                        str(addresses.parse(f"{f'[{host}]' if ':' in host else host}:{text.strip().lstrip(':')}"))
                        for text in texts
                    )
                except ValueError as error:
                    self.errors.append(given.error(f"{error}; allowed: an IP address", given.name))
                    return
                self._put("server.listen_address", bound, listen or given)
            else:
                self.warnings.append(f"{_where(given)}: {given.name} has no effect: listen_address names a host")
            return
        if listen is None:
            return
        for text in _port_texts(listen.raw):
            if addresses.is_port_only(text):
                port = text.strip().lstrip(":")
                self.warnings.append(
                    f"{_where(listen)}: {listen.name} names a port only: listening on {addresses.LOOPBACK}:{port}; "
                    f'write "0.0.0.0:{port}" or "[::]:{port}" for all interfaces'
                )

    def _apply_file_ttl(self) -> None:
        ttl = self._given.get("server.file_ttl")
        switch = self._combined.get("filettlenabled")
        if switch is not None:
            given, on = switch
            if not on:
                self._put("server.file_ttl", None, given)
            elif self._value("server.file_ttl") is None:
                self.errors.append(given.error("is true, but server.file_ttl is not set", given.name, "conflict"))
        elif ttl is not None and ttl.path[-1] != "file_ttl" and self._values.get("server.file_ttl") is not None:
            self.warnings.append(
                f"{_where(ttl)}: {ttl.name} deletes older files here even without filettlenabled = true"
            )

    def _apply_redis(self) -> None:
        parts = {name: self._combined[name] for name in ("redisaddr", "redispassword", "redisdbindex")
                 if name in self._combined}  # fmt: skip
        if not parts:
            return
        given = next(iter(parts.values()))[0]
        if "redis.url" in self._values:
            names = ", ".join(one.name for one, _ in parts.values())
            self.warnings.append(f"{_where(given)}: {names}: no effect, because redis.url is set")
            return
        from urllib.parse import quote

        address = parts["redisaddr"][1].strip() if "redisaddr" in parts else ""
        password = parts["redispassword"][1] if "redispassword" in parts else ""
        number = parts["redisdbindex"][1] if "redisdbindex" in parts else 0
        host = address if ":" in address else f"{address or '127.0.0.1'}:6379"
        login = f":{quote(password, safe='')}@" if password else ""
        url = address if "://" in address else f"redis://{login}{host}/{number}"
        self._put("redis.url", url, given)

    def _note_ignored(self) -> None:
        for (label, why), many in self._ignored.items():
            first = many[0]
            name = f"[{label}]" if len(first.path) > 1 and label == first.path[0] else label
            count = f" ({len(many)} keys)" if len(many) > 1 else ""
            self.warnings.append(f"{_where(first)}: {name} has no effect here{count}: {why}")

    def _note_planned(self) -> None:
        found = [
            f"{name} ({given.origin})"
            for name, given in self._given.items()
            if KEYS[name].planned and self._values[name] != KEYS[name].default
        ]
        if found:
            self.warnings.append(f"this release does not use yet: {', '.join(sorted(found))}")

    def _check_together(self) -> None:
        value, given = self._value, self._given
        if value("workers.numworkers") > value("workers.max_workers"):
            if "workers.max_workers" in given:
                self._conflict("workers.max_workers", "is less than workers.numworkers", "at least workers.numworkers")
            else:
                self._put("workers.max_workers", value("workers.numworkers"), given["workers.numworkers"])
        if value("server.worker_scale_down_thresh") >= value("server.worker_scale_up_thresh"):
            down_set = "server.worker_scale_down_thresh" in given
            name = "server.worker_scale_down_thresh" if down_set else "server.worker_scale_up_thresh"
            self._conflict(name, "the pool would grow and shrink at once",
                           "worker_scale_down_thresh below worker_scale_up_thresh")  # fmt: skip
        certificate, key = value("server.tls_certificate"), value("server.tls_key")
        if (certificate is None) != (key is None):
            name = "server.tls_certificate" if key is None else "server.tls_key"
            self._conflict(name, "is set alone", "server.tls_certificate and server.tls_key together")
        if value("admin.token") is None and "admin.listen_address" in given:
            for text in value("admin.listen_address"):
                if not addresses.parse(text).loopback:
                    self._conflict("admin.listen_address", f"{text} is open to others", "that with an admin.token")

    def _conflict(self, name: str, message: str, allowed: str) -> None:
        given = self._given[name]
        self.errors.append(given.error(f"{message}; allowed: {allowed}", name, "conflict"))


def _secret_key_of_file(spelled: str) -> Key | None:
    """The secret whose `<name>_file` this folded path is."""
    if not spelled.endswith("file"):
        return None
    stem = spelled.removesuffix("file")
    name = _BY_FOLDED.get(stem) or aliases.RENAMED.get(stem)
    key = KEYS.get(name) if name else None
    return key if key is not None and key.secret else None


def _listed(raw: Any, key: Key, given: _Given) -> Any:
    """Text of the environment or --set that spells a TOML list is one, for keys that take lists."""
    if given.layer in {_ENVIRONMENT, _OVERRIDE} and key.kind.is_list and isinstance(raw, str):
        text = raw.strip()
        if text.startswith("[") and text.endswith("]") and (text == "[]" or text[1:].lstrip()[:1] in {'"', "'"}):
            from hmac_file_server.config import document

            return document.value(text)
    return raw


def _refused(key: Key, raw: Any, reason: str) -> str:
    if key.secret or key.kind is kinds.REDIS_URL:
        return f"{reason}; allowed: {key.kind.allowed}"
    shown = kinds.SWITCH.show(raw) if isinstance(raw, bool) else _cut(repr(raw).replace("'", '"'))
    return f"{shown} is not allowed ({reason}); allowed: {key.kind.allowed}"


def _cut(text: str) -> str:
    text = printable(text)
    return text if len(text) <= 60 else text[:59] + "…"


def _where(given: _Given) -> str:
    return f"{given.file}:{given.line}" if given.file is not None else given.origin


def _port_texts(raw: Any) -> list[str]:
    return [str(item) for item in raw] if isinstance(raw, list) else str(raw).split(",")


def _did_you_mean(given: _Given) -> str:
    import difflib

    spelled = given.folded
    candidates = dict(_BY_FOLDED)
    for key in KEYS.values():
        if key.secret:
            candidates[f"{folded(key.section)}.{folded(key.name)}file"] = f"{key}_file"
    section, _, name = spelled.rpartition(".")
    same_key = [full for full in candidates if full.partition(".")[2] == name and name]
    if same_key and section not in {folded(s) for s in SECTIONS}:
        near = difflib.get_close_matches(section, [full.partition(".")[0] for full in same_key], 1, 0)
        best = next((full for full in same_key if near and full.startswith(near[0] + ".")), same_key[0])
        return f"; did you mean {candidates[best]}?"
    if same_key:
        return f"; did you mean {candidates[same_key[0]]}?"
    own = [full for full in candidates if full.startswith(section + ".")]
    close = difflib.get_close_matches(spelled, own, 1, 0.75) or difflib.get_close_matches(spelled, candidates, 1, 0.75)
    if not close and name:
        names = {full.partition(".")[2]: full for full in candidates}
        close = [names[found] for found in difflib.get_close_matches(name, names, 1, 0.8)]
    if close:
        return f"; did you mean {candidates[close[0]]}?"
    return ""
