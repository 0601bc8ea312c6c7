"""The loader: layers, origins, spellings, what is refused and how it says so."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmac_file_server.config import ConfigError, Loaded, Secret, load, with_secret
from hmac_file_server.config.model import KEYS

GOOD = "0123456789abcdef0123456789abcdef"

PLANNED = "this release does not use yet: "

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def _write(text: str) -> Path:
        path = tmp_path / "config.toml"
        path.write_text(text)
        path.chmod(0o600)
        return path

    return _write


def read(path: Path | None, *overrides: str, **environ: str) -> Loaded:
    """Load without the note on keys that a release does not use yet, which changes with the releases."""
    loaded = load(path, environ=environ, overrides=overrides)
    return replace(loaded, warnings=tuple(text for text in loaded.warnings if not text.startswith(PLANNED)))


def refused(path: Path | None, *overrides: str, **environ: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(path, environ=environ, overrides=overrides)
    return caught.value


def only_warning(loaded: Loaded) -> str:
    assert len(loaded.warnings) == 1, loaded.warnings
    return loaded.warnings[0]


# Layers and origins


def test_without_anything_the_defaults_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = read(None)
    assert loaded.settings.server.storage_path == tmp_path / "data"
    assert loaded.warnings == ()
    assert loaded.origins == dict.fromkeys(KEYS, "default")


def test_each_layer_is_above_the_one_before(write: Write) -> None:
    path = write('[uploads]\nchunk_size = "1MB"\nmax_resumable_age = "1h"\n[timeouts]\nmin_rate = 1\n')
    loaded = read(
        path,
        "timeouts.min_rate=3",
        HMAC_FILE_SERVER_UPLOADS__MAX_RESUMABLE_AGE="2h",
        HMAC_FILE_SERVER_TIMEOUTS__MIN_RATE="2",
    )
    assert loaded.settings.uploads.chunk_size == 1024**2
    assert loaded.settings.uploads.max_resumable_age == 7200.0
    assert loaded.settings.timeouts.min_rate == 3
    assert loaded.origins["uploads.chunk_size"] == "config.toml:2"
    assert loaded.origins["uploads.max_resumable_age"] == "environment HMAC_FILE_SERVER_UPLOADS__MAX_RESUMABLE_AGE"
    assert loaded.origins["timeouts.min_rate"] == "--set timeouts.min_rate"
    assert loaded.origins["deduplication.enabled"] == "default"
    assert loaded.warnings == ()


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        ("[timeouts]\nreadtimeout = '7s'", "timeouts.readtimeout"),
        ("[timeouts]\nread_timeout = '7s'", "timeouts.readtimeout"),
        ("[timeouts]\nReadTimeout = '7s'", "timeouts.readtimeout"),
        ("[TimeOuts]\nread = '7s'", "timeouts.readtimeout"),
        ("timeouts.read-timeout = '7s'", "timeouts.readtimeout"),
        ("[uploads]\nsessiontimeout = '7s'", "uploads.max_resumable_age"),
        ("[NetworkResilience]\nStabilizationDelay = '7s'", "network_resilience.stabilization_delay"),
        ("[network_resilience]\ndetection_interval = '7s'", "network_resilience.poll_interval"),
        ("[server]\nfile_ttl = '7s'", "server.file_ttl"),
        ("[uploads]\nttl = '7s'", "server.file_ttl"),
    ],
)
def test_spellings(write: Write, spelled: str, name: str) -> None:
    loaded = read(write(spelled + "\n"))
    assert KEYS[name].value(loaded.settings) == 7.0
    assert loaded.warnings == () or "filettlenabled" in loaded.warnings[0]


@pytest.mark.parametrize(
    ("spelled", "name", "value"),
    [
        ("[uploads]\nchunkeduploadsenabled = false", "uploads.chunked_uploads_enabled", False),
        ("[uploads]\nresumableuploadsenabled = false", "uploads.resumable_uploads_enabled", False),
        ("[uploads]\nchunksize = '1MB'", "uploads.chunk_size", 1024**2),
        ("[uploads]\nmax_file_size = '1MB'", "server.max_upload_size", 1024**2),
        ("[uploads]\nnetworkevents = false", "server.networkevents", False),
        ("[uploads]\ndedupe = false", "deduplication.enabled", False),
        ("[uploads]\nallowedextensions = ['.JPG', 'png']", "uploads.allowed_extensions", (".jpg", ".png")),
        ("[workers]\nauto_scaling = false", "server.enable_dynamic_workers", False),
        ("[workers]\nnum_workers = 5", "workers.numworkers", 5),
        ("[workers]\nupload_queue_size = 5", "workers.uploadqueuesize", 5),
        ("[deduplication]\nmax_size = '1MB'", "deduplication.maxsize", 1024**2),
        ("[server]\nnetwork_events = false", "server.networkevents", False),
        ("[server]\nminfreebytes = '1MB'", "server.min_free_bytes", 1024**2),
        ("[server]\nupload_path = '/srv/up'", "server.storage_path", Path("/srv/up")),
        ("[server]\nlog_level = 'warn'", "logging.level", "warning"),
        ("[server]\nlogfile = '/var/log/x'", "logging.file", Path("/var/log/x")),
        ("[redis]\nredisenabled = true", "redis.enabled", True),
        ("[session_store]\nredis_url = 'redis://h:1/2'", "redis.url", "redis://h:1/2"),
        (f"[security]\nhmac_secret = '{GOOD}'", "security.secret", (Secret(GOOD),)),
        (f"[server]\nhmac_secret = '{GOOD}'", "security.secret", (Secret(GOOD),)),
        (f"[auth]\nshared_secret = '{GOOD}'", "security.secret", (Secret(GOOD),)),
        (f"[security]\njwtsecret = '{GOOD}'", "security.jwt_secret", (Secret(GOOD),)),
        (f"[admin.auth]\ntoken = '{GOOD}'", "admin.token", Secret(GOOD)),
    ],
)
def test_keys_of_the_go_server_with_a_meaning(write: Write, spelled: str, name: str, value: object) -> None:
    loaded = read(write(spelled + "\n"))
    assert KEYS[name].value(loaded.settings) == value
    assert loaded.warnings == ()
    assert loaded.origins[name] == "config.toml:2"


@pytest.mark.parametrize(
    ("spelled", "said"),
    [
        ("[clamav]\nclamavenabled = true\nnumscanworkers = 2", "[clamav] has no effect here (2 keys): uploads are NOT"),
        ("[downloads]\nchunk_size = '8192'", "[downloads] has no effect here"),
        ("[rate_limit]\nenabled = true", "[rate_limit] has no effect here: requests are NOT limited"),
        ("[quotas]\nenabled = true\ncustom = {'a@b.c' = '1GB'}", "[quotas] has no effect here (2 keys)"),
        ("[server]\nmetricsport = '9090'", "server.metricsport has no effect here: metrics are served at admin"),
        ("[server]\npidfilepath = '/run/x.pid'", "server.pidfilepath has no effect here"),
        ("[server]\nunixsocket = true", 'use listen_address = "unix:/path/to/socket"'),
        ("[logging]\nmax_size = 100", "logging.max_size has no effect here: turn the log file with logrotate"),
        ("[security]\ntoken_grace_period = '8h'", "an expired signature is expired for everybody"),
        ("[network_resilience]\nfast_detection = true", "network_resilience.fast_detection has no effect here"),
        ("[iso]\nenabled = false", "[iso] has no effect here"),
        ("[logging]\nlog_dir = '/x'", "logging.log_dir has no effect here"),
    ],
)
def test_keys_of_the_go_server_without_one_are_named(write: Write, spelled: str, said: str) -> None:
    path = write(spelled + "\n")
    warning = only_warning(read(path))
    assert said in warning
    assert warning.startswith(f"{path}:2: ")
    assert "did you mean" not in warning


@pytest.mark.parametrize(
    ("spelled", "meant"),
    [
        ("[uploads]\nchunk_siz = 1", "uploads.chunk_size"),
        ("[uploads]\nchunk_sizes = 1", "uploads.chunk_size"),
        ("[upload]\nchunk_size = 1", "uploads.chunk_size"),
        ("[server]\nchunk_size = 1", "uploads.chunk_size"),
        ("[server]\nlisten_addres = 1", "server.listen_address"),
        ("[severs]\nstorage_path = 1", "server.storage_path"),
        ("[timeouts]\nstalltimeouts = 1", "timeouts.stall_timeout"),
        ("[security]\nsecretfiles = 1", "security.secret_file"),
        ("chunk_size = 1", "uploads.chunk_size"),
        ("[loging]\nlevel = 1", "logging.level"),
        ("[deduplications]\nenabled = true", "deduplication.enabled"),
    ],
)
def test_a_typing_error_gets_a_did_you_mean(write: Write, spelled: str, meant: str) -> None:
    warning = only_warning(read(write(spelled + "\n")))
    assert warning.endswith(f"ignored; did you mean {meant}?")
    assert "unknown key" in warning


def test_what_resembles_nothing_is_only_named(write: Write) -> None:
    path = write("[server]\nzzzz = 1\n")
    assert only_warning(read(path)) == f"{path}:2: unknown key server.zzzz, ignored"


def test_two_spellings_of_one_key(write: Write) -> None:
    path = write('[uploads]\nchunk_size = "1MB"\nchunksize = "2MB"\n')
    loaded = read(path)
    assert loaded.settings.uploads.chunk_size == 2 * 1024**2
    assert only_warning(loaded) == (
        f"{path}:3: uploads.chunksize is set already in {path}:2 as uploads.chunk_size; the last one counts"
    )


def test_a_repeated_table_is_merged_with_a_warning(write: Write) -> None:
    path = write("[server]\nmptcp = false\n[uploads]\n[server]\nnetworkevents = false\n")
    loaded = read(path)
    assert loaded.settings.server.mptcp is False
    assert loaded.settings.server.networkevents is False
    assert only_warning(loaded) == f"{path}:4: [server] is there already in line 1; both are used as one"


def test_what_the_release_does_not_use_is_named_when_it_is_set(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {name: replace(key, planned=name.startswith("uploads.")) for name, key in KEYS.items()}
    monkeypatch.setattr("hmac_file_server.config.loader.KEYS", keys)
    path = write("[uploads]\nchunk_size = '5MB'\nmax_resumable_age = '1h'\n[timeouts]\nmin_rate = 1\n")
    loaded = load(path, environ={}, overrides=["uploads.max_sessions_per_owner=7"])
    assert loaded.warnings == (
        PLANNED
        + "uploads.max_resumable_age (config.toml:3), "
        + "uploads.max_sessions_per_owner (--set uploads.max_sessions_per_owner)",
    )
    assert load(None, environ={}, overrides=()).warnings == ()


# Wrong values


@pytest.mark.parametrize(
    ("line", "key", "allowed"),
    [
        ("uploads.chunk_size = 'adaptive'", "uploads.chunk_size", "from 1KB to 5GB"),
        ("uploads.chunk_size = 0", "uploads.chunk_size", "from 1KB to 5GB"),
        ("uploads.chunk_size = true", "uploads.chunk_size", "1 KB = 1024 bytes"),
        ("uploads.chunk_size = 1.5", "uploads.chunk_size", "1 KB = 1024 bytes"),
        ("uploads.chunk_size = ['1MB']", "uploads.chunk_size", "1 KB = 1024 bytes"),
        ("uploads.max_resumable_age = 48", "uploads.max_resumable_age", 'such as "500ms"'),
        ("uploads.max_resumable_age = 'off'", "uploads.max_resumable_age", 'such as "500ms"'),
        ("uploads.durability = 'none'", "uploads.durability", '"full" or "relaxed"'),
        ("uploads.allowed_extensions = ['a/b']", "uploads.allowed_extensions", "file name extensions"),
        ("uploads.allowed_extensions = [1]", "uploads.allowed_extensions", "file name extensions"),
        ("uploads.chunked_uploads_enabled = 'maybe'", "uploads.chunked_uploads_enabled", "true or false"),
        ("uploads.chunked_uploads_enabled = 1", "uploads.chunked_uploads_enabled", "true or false"),
        ("server.listen_address = '127.0.0.1'", "server.listen_address", "[::1]:8080"),
        ("server.listen_address = []", "server.listen_address", "[::1]:8080"),
        ("server.listen_address = '/run/x.sock'", "server.listen_address", "unix:/run"),
        ("server.base_path = '/a/../b'", "server.base_path", "/upload/"),
        ("server.base_path = '/a%20b'", "server.base_path", "/upload/"),
        ("server.processes = 0", "server.processes", '"auto"'),
        ("server.processes = 'many'", "server.processes", '"auto"'),
        ("server.storage_path = ''", "server.storage_path", "a path"),
        ('server.storage_path = "a\\u0000b"', "server.storage_path", "a path"),
        ("server.trusted_proxies = ['10.0.0.0/33']", "server.trusted_proxies", "10.0.0.0/8"),
        ("server.trusted_proxies = 'proxy.example.org'", "server.trusted_proxies", "10.0.0.0/8"),
        ("workers.numworkers = 0", "workers.numworkers", "from 1 to 1024"),
        ("workers.numworkers = '+4'", "workers.numworkers", "from 1 to 1024"),
        ("workers.numworkers = 4.0", "workers.numworkers", "from 1 to 1024"),
        ("deduplication.hash = 'md5'", "deduplication.hash", '"blake3" or "sha256"'),
        ("security.schemes = ['v4']", "security.schemes", '"prosody-jwt"'),
        ("security.schemes = []", "security.schemes", '"prosody-jwt"'),
        ("redis.url = 'http://x'", "redis.url", "redis://"),
        ("logging.level = 'loud'", "logging.level", '"warning"'),
        ("logging.format = 'xml'", "logging.format", '"text" or "json"'),
        ("timeouts.stall_timeout = '0s'", "timeouts.stall_timeout", "from 100ms"),
        ("timeouts.min_rate = 'fast'", "timeouts.min_rate", "0 = no bound"),
        ("server.file_ttl = '12'", "server.file_ttl", '"off"'),
        ("server = 1", "", ""),
    ],
)
def test_a_wrong_value_names_file_line_key_and_what_is_allowed(write: Write, line: str, key: str, allowed: str) -> None:
    path = write("# first\n" + line + "\n")
    if not key:
        assert "unknown key server" in only_warning(read(path))
        return
    error = refused(path)
    assert (error.file, error.line, error.key, error.code) == (str(path), 2, key, "value")
    assert "; allowed: " in error.message
    assert allowed in error.message
    assert str(error) == f"{path}:2: {key}: {error.message}"
    assert "\n" not in str(error)


def test_every_error_of_a_load_is_kept(write: Write) -> None:
    error = refused(write("[workers]\nnumworkers = 0\n[uploads]\nchunk_size = 'x'\n"), "logging.level=loud")
    assert [one.key for one in error.all] == ["workers.numworkers", "uploads.chunk_size", "logging.level"]
    assert [one.file for one in error.all][2] == "--set logging.level"


def test_a_long_or_odd_value_is_cut_and_escaped(write: Write) -> None:
    error = refused(write('[uploads]\nchunk_size = "\\u202e' + "x" * 500 + '"\n'))
    assert len(error.message) < 300
    assert "\u202e" not in error.message
    assert error.message.isprintable()


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    missing = refused(tmp_path / "none.toml")
    assert (missing.code, missing.message) == ("file", "cannot be read: No such file or directory")
    assert refused(tmp_path).code == "file"
    big = tmp_path / "big.toml"
    big.write_text("#" * (1 << 20) + "\n")
    assert "more than 1 MiB" in refused(big).message


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_bytes(b"# one\n# \xff\n")
    error = refused(path)
    assert (error.code, error.line) == ("syntax", 2)


# Environment and --set


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a:1,b:2", ("a:1", "b:2")),
        ("a:1 , b:2,", ("a:1", "b:2")),
        ('["a:1", "b:2"]', ("a:1", "b:2")),
        ("[::1]:80", ("[::1]:80",)),
        ("[::1]:80,[::2]:80", ("[::1]:80", "[::2]:80")),
    ],
)
def test_lists_from_the_environment(text: str, value: tuple[str, ...]) -> None:
    loaded = read(None, HMAC_FILE_SERVER_SERVER__LISTEN_ADDRESS=text)
    assert loaded.settings.server.listen_address == value
    assert read(None, f"server.listen_address={text}").settings == loaded.settings


@pytest.mark.parametrize("text", ["", "[]"])
def test_empty_lists_from_the_environment(text: str) -> None:
    assert read(None, HMAC_FILE_SERVER_UPLOADS__ALLOWED_EXTENSIONS=text).settings.uploads.allowed_extensions == ()


@pytest.mark.parametrize("word", ["true", "TRUE", "yes", "on", "1"])
def test_switches_from_the_environment(word: str) -> None:
    loaded = read(None, HMAC_FILE_SERVER_SECURITY__STRICT_SIGNATURES=word)
    assert loaded.settings.security.strict_signatures is True


def test_an_environment_name_that_is_no_setting() -> None:
    loaded = read(
        None, HMAC_FILE_SERVER_CHUNK_SIZE="1", HMAC_FILE_SERVER_SECRET=GOOD, HMAC_FILE_SERVER_CONFIG="x", PATH="y"
    )
    assert only_warning(loaded) == (
        "environment HMAC_FILE_SERVER_CHUNK_SIZE: no setting; settings are HMAC_FILE_SERVER_SECTION__KEY"
    )
    typo = read(None, HMAC_FILE_SERVER_UPLOADS__CHUNK_SIZ="1")
    assert "did you mean uploads.chunk_size?" in only_warning(typo)


def test_a_wrong_environment_value_names_the_variable() -> None:
    error = refused(None, HMAC_FILE_SERVER_WORKERS__NUMWORKERS="x")
    assert error.file == "environment HMAC_FILE_SERVER_WORKERS__NUMWORKERS"


@pytest.mark.parametrize("text", ["", "chunk_size=1", "=1", "uploads.chunk_size", "uploads.=1", ".x=1"])
def test_a_malformed_override(text: str) -> None:
    error = refused(None, text)
    assert error.code == "override"
    assert "section.key=value" in error.message


def test_a_value_of_an_override_may_hold_an_equals_sign() -> None:
    assert read(None, "redis.url=redis://h/0?a=b").settings.redis.url == "redis://h/0?a=b"


# Secrets


def test_a_secret_and_a_list_for_rotation(write: Write) -> None:
    other = "f" * 32
    one = read(write(f'[security]\nsecret = "{GOOD}"\n'))
    two = read(write(f'[security]\nsecret = ["{other}", "{GOOD}", "{other}"]\n'))
    assert [s.reveal().decode() for s in one.settings.security.secret] == [GOOD]
    assert [s.reveal().decode() for s in two.settings.security.secret] == [other, GOOD]


def test_secrets_from_files_relative_to_the_configuration(write: Write, tmp_path: Path) -> None:
    (tmp_path / "new").write_text(GOOD + "\n")
    (tmp_path / "old").write_text("f" * 40)
    path = write('[security]\nsecret_file = ["new", "./old"]\njwt_secret_file = "old"\n[admin]\ntoken_file = "new"\n')
    security = read(path).settings.security
    assert [s.reveal() for s in security.secret] == [GOOD.encode(), b"f" * 40]
    assert security.jwt_secret == (Secret("f" * 40),)
    assert read(path).settings.admin.token == Secret(GOOD)
    assert read(path).origins["security.secret"] == "config.toml:2"


def test_a_secret_and_a_secret_file_add_up(write: Write, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("f" * 40)
    path = write(f'[security]\nsecret = "{GOOD}"\nsecret_file = "old"\n')
    assert read(path).settings.security.secret == (Secret(GOOD), Secret("f" * 40))


def test_a_secret_of_a_higher_layer_replaces_the_lower_ones(write: Write, tmp_path: Path) -> None:
    (tmp_path / "s").write_text("f" * 40)
    inline, in_file = write(f'[security]\nsecret = "{GOOD}"\n'), tmp_path / "other.toml"
    in_file.write_text('[security]\nsecret_file = "s"\n')
    for path in (inline, in_file):
        by_value = read(path, HMAC_FILE_SERVER_SECURITY__SECRET="e" * 32)
        assert by_value.settings.security.secret == (Secret("e" * 32),)
        by_file = read(path, HMAC_FILE_SERVER_SECURITY__SECRET_FILE=str(tmp_path / "s"))
        assert by_file.settings.security.secret == (Secret("f" * 40),)


def test_a_secret_with_commas_in_the_environment_is_one() -> None:
    text = "a,b," + "c" * 40
    assert read(None, HMAC_FILE_SERVER_SECURITY__SECRET=text).settings.security.secret == (Secret(text),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("changeme", "public"),
        ("your-secret-here", "public"),
        ("x" * 15, "at least 16"),
    ],
)
def test_secrets_that_are_refused(write: Write, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "s").write_text(text)
    for line in (f'secret = "{text}"', f'secret = ["{GOOD}", "{text}"]', 'secret_file = "s"', f'jwt_secret = "{text}"'):
        error = refused(write(f"[security]\n{line}\n"))
        assert error.code == "secret"
        assert said in error.message
        assert error.line == 2


def test_an_optional_secret_may_be_empty(write: Write) -> None:
    loaded = read(write('[security]\ndelete_secret = ""\n[admin]\ntoken = ""\n'))
    assert loaded.settings.security.delete_secret is None
    assert loaded.settings.admin.token is None


def test_a_short_secret_is_warned_about(write: Write) -> None:
    path = write('[security]\nsecret = "twenty-bytes-of-text"\n')
    assert only_warning(read(path)).startswith(f"{path}:2: security.secret is only 20 bytes long")


def test_a_secret_in_a_file_that_all_may_read(write: Write) -> None:
    path = write(f'[security]\nsecret = "{GOOD}"\n')
    path.chmod(0o644)
    assert "everybody may read it; chmod 600" in only_warning(read(path))


def test_a_missing_secret_file(write: Write, tmp_path: Path) -> None:
    error = refused(write('[security]\nsecret_file = "none"\n'))
    assert (error.code, error.key) == ("file", "security.secret_file")
    assert error.message == f"{tmp_path / 'none'}: No such file or directory"


def test_both_forms_of_a_single_secret_exclude_each_other(write: Write, tmp_path: Path) -> None:
    (tmp_path / "s").write_text(GOOD)
    error = refused(write(f'[admin]\ntoken = "{GOOD}"\ntoken_file = "s"\n'))
    assert error.code == "conflict"


@pytest.mark.parametrize("key", ["security.secret", "security.jwt_secret", "security.delete_secret", "admin.token"])
def test_no_secret_on_the_command_line(key: str) -> None:
    error = refused(None, f"{key}=marker-{GOOD}")
    assert error.code == "override"
    assert f"use {key}_file" in error.message
    assert "marker" not in str(error)


@pytest.mark.parametrize("value", ["['marker', 1]", "1", "{a = 'marker'}", "true", "[['marker']]"])
def test_no_secret_in_an_error_or_warning(write: Write, value: str) -> None:
    try:
        said = "\n".join(read(write(f"[security]\nsecret = {value}\n")).warnings)
    except ConfigError as caught:
        said = "\n".join(str(one) for one in caught.all)
    assert said
    assert "marker" not in said


def test_with_secret_makes_one_where_none_is_set(tmp_path: Path) -> None:
    loaded = read(None, f"server.storage_path={tmp_path / 'data'}")
    first, made = with_secret(loaded)
    second, again = with_secret(loaded)
    assert made == tmp_path / "data" / ".hmac-file-server" / "secret"
    assert again is None
    assert first.settings == second.settings
    assert len(first.settings.security.secret[0]) == 64
    assert first.origins["security.secret"] == str(made)


def test_with_secret_keeps_the_one_that_is_set(tmp_path: Path, write: Write) -> None:
    loaded = read(write(f'[security]\nsecret = "{GOOD}"\n'))
    assert with_secret(loaded) == (loaded, None)
    assert not (tmp_path / "data").exists()


def test_with_secret_says_where_it_could_not_keep_one(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(ConfigError, match="no secret is set") as caught:
        with_secret(read(None, f"server.storage_path={tmp_path / 'data'}"))
    assert caught.value.code == "secret"


# Keys that mean something together


@pytest.mark.parametrize(
    ("lines", "listening"),
    [
        ("listen_address = '8080'", ("127.0.0.1:8080",)),
        ("listen_address = ':9'", ("127.0.0.1:9",)),
        ("listen_address = 9", ("127.0.0.1:9",)),
        ("listenport = '9'", ("127.0.0.1:9",)),
        ("port = 9", ("127.0.0.1:9",)),
    ],
)
def test_a_port_alone_is_on_this_machine_with_a_note(write: Write, lines: str, listening: tuple[str, ...]) -> None:
    path = write(f"[server]\n{lines}\n")
    loaded = read(path)
    assert loaded.settings.server.listen_address == listening
    assert f"names a port only: listening on {listening[0]}" in only_warning(loaded)


@pytest.mark.parametrize(
    ("lines", "listening"),
    [
        ("bind_ip = '0.0.0.0'\nlisten_address = '9'", ("0.0.0.0:9",)),
        ("listenport = '9'\nbindip = '::1'", ("[::1]:9",)),
        ("listen_address = ['9', ':10']\ninterface = '10.0.0.1'", ("10.0.0.1:9", "10.0.0.1:10")),
        ("bind_ip = '10.0.0.1'", ("10.0.0.1:8080",)),
        ("bind_ip = ''\nlisten_address = '1.2.3.4:9'", ("1.2.3.4:9",)),
    ],
)
def test_bind_ip_and_a_port(write: Write, lines: str, listening: tuple[str, ...]) -> None:
    loaded = read(write(f"[server]\n{lines}\n"))
    assert loaded.settings.server.listen_address == listening
    assert loaded.warnings == ()


def test_bind_ip_beside_a_whole_address_or_a_wrong_one(write: Write) -> None:
    loaded = read(write("[server]\nbind_ip = '10.0.0.1'\nlisten_address = '1.2.3.4:9'\n"))
    assert loaded.settings.server.listen_address == ("1.2.3.4:9",)
    assert "bind_ip has no effect" in only_warning(loaded)
    assert refused(write("[server]\nbind_ip = 'a b'\n")).key == "server.bind_ip"


def test_file_ttl_and_its_switch(write: Write) -> None:
    assert read(write("[server]\nfilettlenabled = true\nfilettl = '30d'\n")).settings.server.file_ttl == 30 * 86400.0
    assert read(write("[server]\nfile_ttl_enabled = false\nfilettl = '30d'\n")).settings.server.file_ttl is None
    assert read(write("[server]\nfile_ttl = 'off'\n")).settings.server.file_ttl is None
    assert read(write("[server]\nfile_ttl = '30d'\n")).warnings == ()
    assert refused(write("[server]\nttl_enabled = true\n")).code == "conflict"
    assert "deletes older files here" in only_warning(read(write("[server]\nfilettl = '30d'\n")))


@pytest.mark.parametrize(
    ("lines", "on"),
    [
        ("server.deduplication_enabled = false", False),
        ("server.deduplication_enabled = true", True),
        ("server.deduplication_enabled = true\ndeduplication.enabled = false", False),
        ("server.deduplication_enabled = false\ndeduplication.enabled = true", False),
    ],
)
def test_the_two_switches_of_deduplication(write: Write, lines: str, *, on: bool) -> None:
    assert read(write(lines + "\n")).settings.deduplication.enabled is on


def test_enablejwt(write: Write) -> None:
    off = read(write(f"[security]\nenablejwt = false\njwtsecret = '{GOOD}'\n"))
    assert off.settings.security.jwt_secret == ()
    assert "is not used" in only_warning(off)
    on = read(write(f"[security]\njwt_enabled = true\njwtsecret = '{GOOD}'\n"))
    assert on.settings.security.jwt_secret == (Secret(GOOD),)
    assert "only with claims" in only_warning(on)


@pytest.mark.parametrize(
    ("lines", "url"),
    [
        ("redisaddr = 'h:1'", "redis://h:1/0"),
        ("address = 'h'\ndb = 3", "redis://h:6379/3"),
        ("redisaddr = 'h:1'\nredispassword = 'p@ss/w'\nredisdbindex = 2", "redis://:p%40ss%2Fw@h:1/2"),
        ("addr = 'redis://x:1/4'", "redis://x:1/4"),
        ("url = 'redis://x:1/4'\nredispassword = ''", "redis://x:1/4"),
    ],
)
def test_a_redis_url_from_its_parts(write: Write, lines: str, url: str) -> None:
    assert read(write(f"[redis]\n{lines}\n")).settings.redis.url == url


def test_a_wrong_redis_password_is_not_shown(write: Write) -> None:
    assert "4711" not in str(refused(write("[redis]\nredispassword = 4711\n")))


@pytest.mark.parametrize(
    "line",
    [
        "url = 'http://:marker@h'",
        "url = ':marker@h'",
        "url = ['redis://:marker@h']",
        "redisaddr = ['redis://:marker@h']",
    ],
)
def test_a_wrong_redis_url_is_not_shown(write: Write, line: str) -> None:
    assert "marker" not in str(refused(write(f"[redis]\n{line}\n")))


@pytest.mark.parametrize(
    "override",
    [
        "redis.url=redis://:marker@h/0",
        "redis.url=redis://h/0?password=marker",
        "redis.password=marker",
        "redis.addr=redis://user:marker@h",
    ],
)
def test_no_password_of_redis_on_the_command_line(override: str) -> None:
    error = refused(None, override)
    assert error.code == "override"
    assert "marker" not in str(error)


def test_a_redis_without_a_password_on_the_command_line() -> None:
    assert read(None, "redis.url=redis://h:1/2").settings.redis.url == "redis://h:1/2"
    assert read(None, "redis.addr=h:1").settings.redis.url == "redis://h:1/0"


def test_admin_off_and_open_to_others(write: Write) -> None:
    assert read(write("[admin]\nenabled = false\n")).settings.admin.listen_address == ()
    assert read(write("[admin]\nlisten_address = 'off'\n")).settings.admin.listen_address == ()
    assert read(write("[admin]\nlisten_address = []\n")).settings.admin.listen_address == ()
    assert read(write("[admin]\nenabled = true\n")).settings.admin.listen_address == ("127.0.0.1:9090",)
    assert refused(write("[admin]\nlisten_address = '0.0.0.0:9'\n")).code == "conflict"
    path = write(f"[admin]\nlisten_address = '0.0.0.0:9'\ntoken = '{GOOD}'\n")
    assert read(path).settings.admin.listen_address == ("0.0.0.0:9",)


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ("workers.numworkers = 9\nworkers.max_workers = 8", "workers.max_workers"),
        ("server.worker_scale_down_thresh = 50", "server.worker_scale_down_thresh"),
        ("server.worker_scale_up_thresh = 10", "server.worker_scale_up_thresh"),
        ("server.tls_certificate = 'c'", "server.tls_certificate"),
        ("server.tls_key = 'k'", "server.tls_key"),
    ],
)
def test_values_that_do_not_go_together(write: Write, lines: str, key: str) -> None:
    error = refused(write(lines + "\n"))
    assert (error.code, error.key) == ("conflict", key)


def test_more_workers_than_the_default_limit_raise_it(write: Write) -> None:
    assert read(write("[workers]\nnumworkers = 40\n")).settings.workers.max_workers == 40


def test_paths_are_relative_to_what_names_them(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    path = write("[server]\nstorage_path = './up/../store'\n[logging]\nfile = 'a.log'\n")
    settings = read(path).settings
    assert settings.server.storage_path == tmp_path / "store"
    assert settings.logging.file == tmp_path / "a.log"
    assert read(path, "server.storage_path=x").settings.server.storage_path == elsewhere / "x"
    assert read(path, HMAC_FILE_SERVER_LOGGING__FILE="").settings.logging.file is None


def test_the_order_and_wording_of_schemes(write: Write) -> None:
    assert read(write("security.schemes = ['v2', 'V1', 'v2']\n")).settings.security.schemes == ("v1", "v2")
    assert len(read(write("security.schemes = 'all'\n")).settings.security.schemes) == 7


@given(
    st.dictionaries(
        st.sampled_from([*KEYS, "server.bind_ip", "redis.redisaddr", "security.secret_file", "x.y", "clamav.z"]),
        st.text(max_size=12),
        max_size=4,
    )
)
def test_any_environment_loads_or_is_refused(values: dict[str, str]) -> None:
    environ = {"HMAC_FILE_SERVER_" + name.upper().replace(".", "__"): text for name, text in values.items()}
    try:
        loaded = load(None, environ=environ, overrides=())
    except ConfigError as caught:
        lines = [str(one) for one in caught.all]
    else:
        lines = list(loaded.warnings)
        assert set(loaded.origins) == set(KEYS)
    assert all(line.isprintable() for line in lines)
