"""The fixture itself: what it makes works, is separate from the machine, and leaves nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.fixtures import namespaces
from tests.fixtures.child import wait_until
from tests.fixtures.namespaces import Network, network, sweep


def test_two_machines_talk_over_two_links(net: Network) -> None:
    server, phone = net.namespace("server"), net.namespace("phone")
    wifi, mobile = net.link(server, phone), net.link(server, phone, ipv6=True)
    for address in (wifi.first.address, mobile.first.address, mobile.first.address6):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with (
            server.call(socket.create_server, (address, 0), family=family) as listener,
            phone.connect((address, listener.getsockname()[1])) as client,
        ):
            taken, peer = listener.accept()
            with taken:
                assert peer[0] in {wifi.second.address, mobile.second.address, mobile.second.address6}
                client.sendall(b"over the veth")
                assert taken.recv(100) == b"over the veth"


def test_a_switched_off_link_leaves_the_server_with_a_half_open_connection(net: Network) -> None:
    server, phone = net.namespace(), net.namespace()
    wifi, mobile = net.link(server, phone), net.link(server, phone)
    with (
        server.call(socket.create_server, ("0.0.0.0", 0)) as listener,
        phone.connect((wifi.first.address, listener.getsockname()[1])) as old,
    ):
        half_open, _ = listener.accept()
        with half_open:
            wifi.second.down()
            old.send(b"into the void")
            with phone.connect((mobile.first.address, listener.getsockname()[1])) as new:
                again, peer = listener.accept()
                with again:
                    assert peer[0] == mobile.second.address
                    new.sendall(b"back")
                    assert again.recv(10) == b"back"
            half_open.setblocking(False)
            with pytest.raises(BlockingIOError):
                half_open.recv(10)
            wifi.second.up()
            half_open.settimeout(10)
            assert half_open.recv(100) == b"into the void"


def test_packets_can_be_dropped(net: Network) -> None:
    server, phone = net.namespace(), net.namespace()
    link = net.link(server, phone)
    with server.call(socket.create_server, ("0.0.0.0", 0)) as listener:
        where = (link.first.address, listener.getsockname()[1])
        server.drop("input", f"tcp dport {where[1]}")
        with pytest.raises(TimeoutError):
            phone.connect(where, timeout=0.2)
        server.drop_nothing()
        phone.connect(where).close()
        phone.iptables("-A", "OUTPUT", "-p", "tcp", "-j", "REJECT")
        with pytest.raises(OSError, match="refused"):
            phone.connect(where)


def test_a_rate_is_kept(net: Network) -> None:
    server, phone = net.namespace(), net.namespace()
    link = net.link(server, phone)
    link.rate("8mbit")
    assert "rate 8Mbit" in phone.run("tc", "qdisc", "show", "dev", link.second.device)
    assert "rate 8Mbit" in server.run("tc", "qdisc", "show", "dev", link.first.device)


def test_calls_and_programs_run_inside(net: Network) -> None:
    inside = net.namespace("inside")
    inode = os.stat(inside.path).st_ino
    assert inside.call(os.stat, "/proc/thread-self/ns/net").st_ino == inode
    assert os.stat("/proc/thread-self/ns/net").st_ino != inode
    code = "import os; print(os.stat('/proc/self/ns/net').st_ino)"
    assert int(inside.run(sys.executable, "-c", code)) == inode
    child = inside.popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert int(child.communicate()[0]) == inode
    with pytest.raises(ZeroDivisionError):
        inside.call(lambda: 1 / 0)
    with pytest.raises(AssertionError, match="exit"):
        inside.run(sys.executable, "-c", "raise SystemExit('exit')")


def test_sysctls_are_of_the_namespace(net: Network) -> None:
    inside = net.namespace()
    inside.sysctl("net.ipv4.ip_default_ttl", 77)
    assert inside.call(Path("/proc/sys/net/ipv4/ip_default_ttl").read_text) == "77\n"
    assert Path("/proc/sys/net/ipv4/ip_default_ttl").read_text() != "77\n"


def test_nothing_is_left() -> None:
    with network() as net:
        inside = net.namespace()
        net.link(inside, inside)
        child = inside.popen(["sleep", "1000"])
        assert os.path.exists(inside.path)
    assert not os.path.exists(inside.path)
    assert child.returncode == -9


def in_namespace(pid: int, inode: int) -> bool:
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino == inode
    except OSError:
        return False


def test_what_a_dead_run_left_is_swept(tmp_path: Path) -> None:
    # Ends without its finalisers, as a killed run does, and leaves a program running in its namespace.
    code = (
        "import os, sys\n"
        "from tests.fixtures.namespaces import Network\n"
        "inside = Network().namespace('left')\n"
        "import subprocess\n"
        "child = subprocess.Popen(inside.command(['sleep', '1000']), **dict.fromkeys(('stdin', 'stdout', 'stderr'), subprocess.DEVNULL))\n"
        "inside.run('true')\n"
        "print(inside.path, child.pid, flush=True)\n"
        "os._exit(1)\n"
    )
    with network() as net:
        mine = net.namespace()
        root = Path(namespaces.__file__).parent.parent.parent
        ended = subprocess.run(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            cwd=root,
        )
        path, pid = ended.stdout.split()
        assert os.path.exists(path), ended.stderr
        inode = os.stat(path).st_ino
        assert in_namespace(int(pid), inode)
        assert os.path.basename(path) in sweep()
        assert not os.path.exists(path)
        # It is no child of ours, so that its end is seen when somebody else has taken notice of it.
        wait_until(lambda: not in_namespace(int(pid), inode), "the program of the dead run ends")
        assert os.path.exists(mine.path)


def test_who_may_not_is_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(pytest.skip.Exception, match="need root"), network():
        pass
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(namespaces, "_SEARCH", "/nonexistent")
    with pytest.raises(pytest.skip.Exception, match="iproute2"), network():
        pass
