"""Listening sockets: every family, several processes, clean failures."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hmac_file_server.network import ListenFailed, Listening, has_other_path, listen, set_user_timeout
from hmac_file_server.network import listening as module


@pytest.fixture
def opened() -> Iterator[list[Listening]]:
    """What a test listened on; closed at the end."""
    found: list[Listening] = []
    yield found
    for each in found:
        each.close()


def ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not ipv6(), reason="this machine has no IPv6 loopback")


def port_of(sock: socket.socket) -> int:
    port = sock.getsockname()[1]
    assert isinstance(port, int)
    return port


def connects(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=5).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("mptcp", [False, True])
def test_one_process_one_socket(opened: list[Listening], mptcp: bool) -> None:
    found = listen(["127.0.0.1:0"], 1, mptcp=mptcp)
    opened.append(found)
    ((sock,),) = found.sockets
    assert found.addresses == (f"127.0.0.1:{port_of(sock)}",)
    assert port_of(sock) != 0
    assert found.unix_paths == ()
    assert connects(("127.0.0.1", port_of(sock)))
    assert not sock.getblocking()
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    assert not os.get_inheritable(sock.fileno())


def test_vanished_peers_are_noticed(opened: list[Listening]) -> None:
    opened.append(listen(["127.0.0.1:0"], 1, mptcp=False))
    sock = opened[0].sockets[0][0]
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    idle = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
    interval = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL)
    probes = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT)
    assert idle + interval * probes <= 120


def multipath() -> bool:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, module._MPTCP).close()
    except OSError:
        return False
    return True


needs_multipath = pytest.mark.skipif(not multipath(), reason="this kernel has no multipath TCP")


@contextlib.contextmanager
def accepted(listener: socket.socket, *, protocol: int = 0) -> Iterator[socket.socket]:
    """The server's end of a new connection."""
    listener.setblocking(True)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol) as client:
        client.connect(listener.getsockname())
        with listener.accept()[0] as taken:
            yield taken


def user_timeout(sock: socket.socket) -> int:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)


@pytest.mark.parametrize(("seconds", "milliseconds"), [(90.0, 90_000), (0.25, 250), (0.0001, 1), (1e12, 2**31 - 1)])
def test_connections_inherit_the_user_timeout(opened: list[Listening], seconds: float, milliseconds: int) -> None:
    opened.append(listen(["127.0.0.1:0"], 1, mptcp=False, user_timeout=seconds))
    with accepted(opened[0].sockets[0][0]) as connection:
        assert user_timeout(connection) == milliseconds


def test_every_process_gets_the_user_timeout(opened: list[Listening]) -> None:
    opened.append(listen(["127.0.0.1:0", "127.0.0.2:0"], 2, mptcp=False, user_timeout=60))
    assert [user_timeout(sock) for group in opened[0].sockets for sock in group] == [60_000] * 4


@pytest.mark.parametrize("options", [{}, {"user_timeout": 0.0}, {"user_timeout": -1.0}])
def test_without_a_user_timeout_the_kernel_decides(opened: list[Listening], options: dict[str, float]) -> None:
    opened.append(listen(["127.0.0.1:0"], 1, mptcp=False, **options))
    with accepted(opened[0].sockets[0][0]) as connection:
        assert user_timeout(connection) == 0


@needs_multipath
def test_a_plain_client_of_a_multipath_listener(opened: list[Listening]) -> None:
    """Its connection is plain TCP, and takes the option that its listener may not have."""
    opened.append(listen(["127.0.0.1:0"], 1, mptcp=True, user_timeout=60))
    with accepted(opened[0].sockets[0][0]) as connection:
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
        assert user_timeout(connection) in {0, 60_000}
        assert set_user_timeout(connection, 60)
        assert user_timeout(connection) == 60_000
        assert not has_other_path(connection)


@needs_multipath
def test_a_multipath_connection_is_left_to_the_kernel(opened: list[Listening]) -> None:
    opened.append(listen(["127.0.0.1:0"], 1, mptcp=True, user_timeout=60))
    with accepted(opened[0].sockets[0][0], protocol=module._MPTCP) as connection:
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        # Kernels that learn the option may take it; neither answer is a failure, and neither raises.
        assert set_user_timeout(connection, 60) in {True, False}
        # On loopback there is one path.
        assert not has_other_path(connection)


def test_a_unix_connection_has_no_such_options(opened: list[Listening], tmp_path: Path) -> None:
    opened.append(listen([f"unix:{tmp_path}/s"], 1, mptcp=True, user_timeout=60))
    sock = opened[0].sockets[0][0]
    assert not set_user_timeout(sock, 60)
    assert not has_other_path(sock)


def test_a_socket_that_is_closed_has_no_other_path() -> None:
    with socket.socket() as sock:
        pass
    assert not has_other_path(sock)
    assert not set_user_timeout(sock, 60)


@pytest.mark.parametrize(
    ("info", "found"),
    [
        (bytes([1]) + bytes(7) + b"\2\0\0\0", True),
        (bytes([3]) + bytes(7) + b"\0\0\0\0", True),
        # One path only; fallen back to plain TCP; an answer from no kernel we know.
        (bytes([0]) + bytes(7) + b"\2\0\0\0", False),
        (bytes([1]) + bytes(7) + b"\3\0\0\0", False),
        (bytes([1]), False),
    ],
)
def test_what_the_kernel_says_of_paths(info: bytes, found: bool) -> None:
    class Connection(socket.socket):
        def getsockopt(self, *args: Any) -> Any:
            assert args[:2] == (284, 1)
            return info

    with Connection() as connection:
        assert has_other_path(connection) is found


def test_several_processes_share_the_port(opened: list[Listening]) -> None:
    found = listen(["127.0.0.1:0", "127.0.0.2:0"], 3, mptcp=False)
    opened.append(found)
    assert len(found.sockets) == 3
    first, second = zip(*[[port_of(sock) for sock in group] for group in found.sockets], strict=True)
    assert len(set(first)) == len(set(second)) == 1
    assert first[0] != second[0]
    assert found.addresses == (f"127.0.0.1:{first[0]}", f"127.0.0.2:{second[0]}")
    files = {sock.fileno() for group in found.sockets for sock in group}
    assert len(files) == 6


def test_a_single_process_does_not_share_its_port(opened: list[Listening]) -> None:
    """Without SO_REUSEPORT a second server by mistake is told so."""
    opened.append(listen(["127.0.0.1:0"], 1, mptcp=False))
    port = port_of(opened[0].sockets[0][0])
    for processes in (1, 2):
        with pytest.raises(ListenFailed, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            listen([f"127.0.0.1:{port}"], processes, mptcp=False)


def test_a_child_keeps_its_own_sockets_only(opened: list[Listening]) -> None:
    found = listen(["127.0.0.1:0"], 3, mptcp=False)
    opened.append(found)
    found.keep_only(1)
    assert [sock.fileno() >= 0 for (sock,) in found.sockets] == [False, True, False]
    found.keep_only(1)
    assert connects(("127.0.0.1", port_of(found.sockets[1][0])))


def test_closing_is_for_all_and_may_be_repeated(tmp_path: Path) -> None:
    path = tmp_path / "s"
    found = listen(["127.0.0.1:0", f"unix:{path}"], 2, mptcp=False)
    port = port_of(found.sockets[0][0])
    found.close()
    found.close()
    assert not path.exists()
    assert not connects(("127.0.0.1", port))
    assert all(sock.fileno() < 0 for group in found.sockets for sock in group)


@needs_ipv6
def test_ipv6_loopback(opened: list[Listening]) -> None:
    opened.append(listen(["[::1]:0"], 1, mptcp=True))
    port = port_of(opened[0].sockets[0][0])
    assert opened[0].addresses == (f"[::1]:{port}",)
    assert connects(("::1", port))
    assert not connects(("127.0.0.1", port))


@needs_ipv6
def test_a_name_may_mean_both_families(opened: list[Listening], monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*args: object, **options: object) -> list[tuple[object, ...]]:
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
            (socket.AF_UNIX, socket.SOCK_STREAM, 0, "", "/elsewhere"),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    opened.append(listen(["both.example:0"], 1, mptcp=False))
    assert [sock.family for sock in opened[0].sockets[0]] == [socket.AF_INET6, socket.AF_INET]


def test_a_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*args: object, **options: object) -> list[tuple[object, ...]]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(ListenFailed, match=r"cannot listen on no\.example:80: Name or service not known"):
        listen(["no.example:80"], 1, mptcp=False)


def test_no_multipath_in_the_kernel(opened: list[Listening], monkeypatch: pytest.MonkeyPatch) -> None:
    original = socket.socket

    def without(family: int, kind: int, protocol: int = 0) -> socket.socket:
        if protocol == module._MPTCP:
            raise OSError(93, "Protocol not supported")
        return original(family, kind, protocol)

    monkeypatch.setattr(socket, "socket", without)
    opened.append(listen(["127.0.0.1:0"], 1, mptcp=True))
    assert opened[0].sockets[0][0].proto in {0, socket.IPPROTO_TCP}


# --- Unix sockets ----------------------------------------------------------------------------------------


def test_a_unix_socket(opened: list[Listening], tmp_path: Path) -> None:
    path = tmp_path / "s"
    found = listen([f"unix:{path}"], 2, mptcp=True)
    opened.append(found)
    assert found.addresses == (f"unix:{path}",)
    assert found.unix_paths == (str(path),)
    mode = path.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o666
    # One socket, known to each process.
    ((first,), (second,)) = found.sockets
    assert first.fileno() != second.fileno()
    assert os.fstat(first.fileno()).st_ino == os.fstat(second.fileno()).st_ino
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_the_socket_of_a_dead_server_is_replaced(opened: list[Listening], tmp_path: Path) -> None:
    path = tmp_path / "s"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    opened.append(listen([f"unix:{path}"], 1, mptcp=False))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_the_socket_of_a_living_server_is_left(opened: list[Listening], tmp_path: Path) -> None:
    path = tmp_path / "s"
    opened.append(listen([f"unix:{path}"], 1, mptcp=False))
    with pytest.raises(ListenFailed, match="Address already in use"):
        listen([f"unix:{path}"], 1, mptcp=False)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_no_socket_is_left(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s"
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ListenFailed, match="Address already in use"):
        listen([f"unix:{path}"], 1, mptcp=False)
    assert path.is_symlink() or path.exists()
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ListenFailed, match="No such file or directory"):
        listen([f"unix:{tmp_path}/missing/s"], 1, mptcp=False)


def test_a_failure_gives_everything_back(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(ListenFailed):
            listen([f"unix:{path}", "127.0.0.1:0", f"127.0.0.1:{port_of(taken)}"], 2, mptcp=False)
        assert len(os.listdir("/proc/self/fd")) == before
    assert not path.exists()
