"""Uploads whose networks are cut, change and go dark: they end by themselves, whole, and send little twice.

The links carry 40 Mbit/s in each direction, with a round trip of 30 ms, unless a test says otherwise. "Twice" is what
the router has brought to the server beyond the file and the heads of requests.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.fixtures.child import wait_until
from tests.fixtures.link_uploads import KIB, MIB, ClientName, Phone, Upload, phone
from tests.fixtures.links import LINKS, Quality

USUAL = Quality(rate=40e6, delay=0.015)
TWICE = 64 * KIB
"""What may be sent twice in a switch (issue: below 64 KiB)."""

everyone = pytest.mark.parametrize("client", ["uploader.js", "python", "curl"])
# Those that go on inside of a chunk.
ours = pytest.mark.parametrize("client", ["uploader.js", "python"])


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phone]:
    with phone(tmp_path_factory.mktemp("phone"), quality=USUAL) as made:
        yield made


@pytest.fixture
def made(shared: Phone) -> Iterator[Phone]:
    """The phone and its server, both links up with new addresses."""
    shared.reset(USUAL)
    yield shared
    shared.stop()


def bound(client: ClientName, switches: int) -> int:
    """Bytes that may come twice. The guide's lines for curl begin chunks anew."""
    return switches * (Phone.CHUNK + TWICE if client == "curl" else TWICE)


def impatient(client: ClientName) -> dict[str, object]:
    """Options of a client that does not wait for long. The least that uploader.js has is its default, five seconds."""
    return {"stall_timeout": 1.0} if client == "python" else {}


def judge(upload: Upload, switches: int) -> None:
    """It ends, equal, and with little sent twice."""
    took = upload.finish()
    twice = upload.twice()
    print(f"{upload.client}: {took:.2f} s after the last of it, {twice} bytes twice in {switches} switches")
    assert twice <= bound(upload.client, switches)


@ours
def test_the_link_dies_and_a_new_address_comes(made: Phone, client: ClientName) -> None:
    made.bed.down("mobile")
    upload = made.upload(client, 3 * MIB)
    for reached in (700 * KIB, 2 * MIB + 300 * KIB):
        upload.wait(reached)
        made.bed.switch("wifi")
        made.outage(0.3)
        made.bed.up("wifi", "new")
    judge(upload, 2)


@ours
def test_from_one_link_to_the_other_and_both_at_once(made: Phone, client: ClientName) -> None:
    upload = made.upload(client, 4 * MIB)
    upload.wait(MIB)
    made.bed.down("wifi")
    # Over mobile, which was there all the time.
    upload.wait(2 * MIB)
    made.bed.down("mobile")
    made.outage(0.3)
    made.bed.up("wifi", "new")
    made.bed.up("mobile")
    upload.wait(3 * MIB)
    for link in LINKS:
        made.bed.cut(link)
    made.outage(0.3)
    for link in LINKS:
        made.bed.up(link, "new")
    judge(upload, 3)


@everyone
def test_a_black_hole_without_any_reset(made: Phone, client: ClientName) -> None:
    upload = made.upload(client, 2 * MIB, **impatient(client))
    upload.wait(MIB)
    assert made.bed.black_hole("wifi") > 0
    judge(upload, 1)


@ours
def test_flapping_every_half_second(made: Phone, client: ClientName) -> None:
    made.bed.down("mobile")
    made.bed.rate("wifi", 12e6)
    upload = made.upload(client, 2 * MIB)
    upload.wait(256 * KIB)
    before = made.bed.counters()["wifi"].to_server.cut.packets
    made.bed.flap("wifi", up=0.5, down=0.5)
    # Cut twice, or once more. What is left of TCP's patience afterwards, or of the client's, is not ours to wait for.
    made.outage(1.75)
    made.bed.mend("wifi")
    assert made.bed.counters()["wifi"].to_server.cut.packets > before
    judge(upload, 3)


@ours
def test_addresses_that_come_and_go_every_half_second(made: Phone, client: ClientName) -> None:
    made.bed.down("mobile")
    upload = made.upload(client, 2 * MIB)
    upload.wait(256 * KIB)
    switches = 0
    while upload.process.poll() is None:
        made.bed.switch("wifi")
        made.outage(0.5)
        made.bed.up("wifi", "new")
        made.outage(0.5)
        switches += 1
        assert switches < 30
    assert switches > 1
    judge(upload, switches)


@everyone
def test_an_answer_lost_after_the_commit(made: Phone, client: ClientName) -> None:
    before = made.server.files()
    upload = made.upload(client, Phone.CHUNK - 1, **impatient(client))
    upload.wait(100 * KIB)
    for link in LINKS:
        made.bed.cut(link, to_server="all", to_client="no answers")
    wait_until(lambda: made.server.files() > before, "the file is published")
    # Nor does the old connection ever bring it.
    for link in LINKS:
        made.bed.black_hole(link)
        made.bed.mend(link)
    upload.finish()
    # The file is there already, so nothing of it is sent again. (curl's lines do not know, but they ask.)
    assert upload.twice() == 0
    assert len(made.server.files()) == len(before) + 1


@ours
def test_a_drop_of_the_rate_and_its_return(made: Phone, client: ClientName) -> None:
    made.bed.down("mobile")
    upload = made.upload(client, 4 * MIB)
    upload.wait(MIB)
    before = made.bed.bodies()
    made.bed.rate("wifi", 200e3)
    wait_until(lambda: made.bed.bodies() - before > 60 * KIB, "60 KiB come at 200 kbit/s")
    made.bed.rate("wifi", USUAL.rate)
    judge(upload, 1)


@ours
def test_loss(made: Phone, client: ClientName) -> None:
    made.bed.quality("wifi", loss=0.01)
    made.bed.quality("mobile", loss=0.01)
    upload = made.upload(client, MIB)
    judge(upload, 0)
