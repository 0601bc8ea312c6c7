"""What must hold after every event, whatever the seed did.

- What was told of an upload is on the medium already, in bytes that no power cut can change, and stays as it is.
- Nobody who asks later is told less.
- "Complete" means: the file is at its path, durable, of the right length and with the digest that was told.
- A path gets its file once, and only after a client has sent the last byte of it to the end.
- Who has lost an upload to a newcomer, or to another server, writes nothing and records nothing.
- Space is promised for what is missing of open uploads, neither more nor less.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.simulation.medium import Node

from hmac_file_server.files.paths import PRIVATE
from hmac_file_server.http import BodyEnd
from hmac_file_server.stores.contract import COMPLETE, OPEN, Change, Checkpoint, Claim, Create, Finish, Remove, Session
from hmac_file_server.uploads import Lease
from hmac_file_server.uploads.ranges import RangeSet
from hmac_file_server.uploads.receipt import details_of

if TYPE_CHECKING:
    from tests.simulation.network import Answer, Conversation
    from tests.simulation.world import World

_ID = re.compile(r"[0-9]{1,12}_[0-9a-z]{1,64}")
_LOSSES = frozenset({"upload_lost", "upload_not_found", "upload_expired"})
Spans = tuple[tuple[int, int], ...]


class Violation(AssertionError):  # noqa: N818 - says what it is
    """Something that must never be."""


@dataclass(eq=False)
class Known:
    """What was told of one upload, to anybody."""

    id: str
    path: str = ""
    length: int | None = None
    state: str = OPEN
    explicit: bool = False
    epoch: int = 0
    everything: RangeSet = field(default_factory=RangeSet)
    fixed: bytearray = field(default_factory=bytearray)
    """Bytes that were told; only those of `everything` mean something."""
    complete: bool = False
    told: bool = False
    """Whether a client was given the id."""
    may_end: bool = False
    """Somebody asked for its end, or its time may be over."""
    removed: bool = False
    """Somebody asked for its end after it was complete: the file may go, too."""
    finished: set[int] = field(default_factory=set)
    """Where bodies ended that came whole."""
    seen: tuple[int, int] = (0, 0)


class Judge:
    """Watches one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.known: dict[str, Known] = {}
        self.paths: dict[str, Known] = {}
        self.bodies: set[bytes] = set()
        """Bodies that came whole."""
        self.created: dict[str, int] = {}
        self.gone: set[str] = set()
        """Paths of which a client was told that their file is removed."""
        self.keys: dict[bytes, str] = {}
        self.fault: Violation | None = None
        self.answers = 0

    def blame(self, what: str) -> None:
        """Note a violation; the run ends after this event."""
        if self.fault is None:
            self.fault = Violation(what)

    def upload(self, upload_id: str) -> Known:
        known = self.known.get(upload_id)
        if known is None:
            known = self.known[upload_id] = Known(upload_id, may_end=self._world.lenient)
        return known

    # ---- requests and answers

    def asked(self, conversation: Conversation) -> None:
        """A head has arrived."""
        ask = conversation.ask
        if ask.upload:
            known = self.upload(ask.upload)
            conversation.floor = known.everything.spans()
            conversation.was_complete = known.complete
            if ask.method == "DELETE":
                known.may_end = True
                known.removed = True
        elif ask.method == "PUT" and ask.body is not None:
            conversation.was_complete = ask.path in self.gone

    def answered(self, conversation: Conversation, answer: Answer) -> None:
        """An answer leaves, or an interim one."""
        self.answers += 1
        ask = conversation.ask
        if answer.status == 500 and b"internal_error" in answer.body:
            self.blame(f"500 to {ask.label}: {answer.body.decode()} {sys.exc_info()[1]!r}")
            return
        document: dict[str, Any] = json.loads(answer.body) if answer.body.startswith(b"{") else {}
        upload_id = ask.upload or document.get("session_id") or self._located(answer)
        if not upload_id and conversation.lease is not None:
            upload_id = conversation.lease.upload.id
        code = document.get("code")
        if not upload_id:
            if ask.what == "put" and answer.status == 201:
                self._stored(ask.path, ask.body or b"")
            return
        known = self.upload(upload_id)
        if answer.status in {200, 201} and not ask.upload:
            known.told = True
            self._keyed(ask.fields.get("idempotency-key"), known)
        if code is not None or answer.status >= 400:
            self._refused(known, str(code), answer.status, ask.label)
            if "upload-offset" not in answer.head:
                return
        if ask.method == "DELETE":
            if answer.status == 204 and conversation.was_complete and "tus-resumable" in ask.fields:
                self.gone.add(known.path)
            return
        told = self._told(known, answer, document)
        if told is None:
            return
        complete = self._claims(known, conversation, answer, document, told)
        everything, refused = "received" in document, answer.status >= 308
        self._heard(known, told, conversation, complete=complete, everything=everything, refused=refused)
        if complete:
            self._completed(known, document)

    def _located(self, answer: Answer) -> str:
        found = _ID.search(answer.head.get("location", ""))
        return found[0] if found is not None else ""

    def _keyed(self, key: bytes | None, known: Known) -> None:
        if key is None:
            return
        earlier = self.keys.setdefault(key, known.id)
        if earlier != known.id:
            if not self.known[earlier].may_end:
                self.blame(f"two uploads for one key: {earlier} and {known.id}")
            self.keys[key] = known.id

    def _refused(self, known: Known, code: str, status: int, label: str) -> None:
        if code in {"upload_lost", "storage_failed"} and not self._world.faulty:
            self.blame(f"{label}: {code}, and nothing was done to the disk")
        elif (code in _LOSSES or status == 410) and known.told and not known.may_end:
            self.blame(f"{label}: {code or status}, although nobody ended it")

    def _told(self, known: Known, answer: Answer, document: dict[str, Any]) -> Spans | None:
        """The bytes that an answer says are there."""
        if "received" in document:
            return tuple((start, stop) for start, stop in document["received"])
        offset = answer.head.get("upload-offset")
        if offset is not None:
            return ((0, int(offset)),) if int(offset) else ()
        if answer.status == 308:
            _, _, last = answer.head.get("range", "").partition("-")
            return ((0, int(last) + 1),) if last else ()
        if document.get("success") and "url" in document and "total_size" not in document:
            return ((0, known.length),) if known.length else ()
        return None

    def _claims(
        self, known: Known, conversation: Conversation, answer: Answer, document: dict[str, Any], told: Spans
    ) -> bool:
        """Whether an answer says that the file is there."""
        if document.get("completed") is True:
            return True
        if answer.status >= 400:
            return False
        if answer.head.get("upload-complete") == "?1" or answer.head.get("upload-incomplete") == "?0":
            return True
        if "upload-defer-length" in answer.head:
            return False
        if "tus-resumable" in conversation.ask.fields:
            # Who began it in the draft's protocol has to say that it is complete, however many bytes there are.
            return (
                (not known.explicit or known.state == COMPLETE)
                and known.length is not None
                and told == (((0, known.length),) if known.length else ())
            )
        return bool(document.get("success")) and "url" in document

    def _heard(
        self,
        known: Known,
        told: Spans,
        conversation: Conversation,
        *,
        complete: bool,
        everything: bool,
        refused: bool,
    ) -> None:
        ranges, floor = RangeSet(told), RangeSet(conversation.floor)
        if not everything:
            # An offset tells the first run only.
            floor = RangeSet([(0, floor.reach(0))])
        store = conversation.server.store
        # A server that has not heard of its own commit yet may know less than others read in the store.
        behind = len(self._world.servers) > 1 and store.answered_at >= conversation.arrived_at
        if not behind and not all(ranges.covers(start, stop) for start, stop in floor):
            self.blame(f"{conversation.ask.label}: told {conversation.floor} before, now {told}")
        if conversation.was_complete and not refused and not complete and not known.may_end:
            self.blame(f"{conversation.ask.label}: it was complete before")
        node = self._safe(known)
        for start, stop in told:
            if not known.everything.covers(start, stop):
                found = None if node is None else node.settled(start, stop)
                if found is None:
                    if not known.may_end:
                        self.blame(f"{conversation.ask.label}: {start}-{stop} is told, and not safe")
                    return
                if len(known.fixed) < stop:
                    known.fixed += bytes(stop - len(known.fixed))
                for first, last in known.everything.missing(start, stop):
                    known.fixed[first:last] = found[first - start : last - start]
                known.everything.add(start, stop)
                known.seen = (0, 0)
        known.complete = known.complete or complete

    def _safe(self, known: Known) -> Node | None:
        """The file of an upload as it is found after any cut."""
        medium = self._world.medium
        if known.path:
            node = medium.safe(known.path)
            if node is not None and not node.folder:
                return node
        return medium.safe(f"{PRIVATE}/uploads/{known.id}")

    def _completed(self, known: Known, document: dict[str, Any]) -> None:
        if known.removed:
            return
        node = self._world.medium.safe(known.path) if known.path else None
        if node is None or known.length is None or node.settled(0, known.length) is None:
            self.blame(f"{known.id} is told complete, and its file is not safe")
        elif len(node.live) != known.length:
            self.blame(f"{known.id} is told complete with {len(node.live)} of {known.length} bytes")
        elif document.get("sha256", digest := hashlib.sha256(node.live).hexdigest()) != digest:
            self.blame(f"{known.id}: the digest is not that of the file")

    def _stored(self, path: str, body: bytes) -> None:
        if path[1:] in self.gone:
            return
        node = self._world.medium.safe(path.partition("/upload/")[2])
        if node is None or node.settled(0, len(body)) != body or len(node.live) != len(body):
            self.blame(f"201 for {path}, and the file is not safe")

    # ---- bodies

    def wrote(self, conversation: Conversation, lease: Lease | None) -> None:
        """A piece of a body was taken."""
        if lease is None or not conversation.server.alive:
            return
        known = self.upload(lease.upload.id)
        # One that another server has ended has no file that could suffer.
        if lease.upload.epoch != known.epoch and known.state == OPEN:
            self.blame(f"{conversation.server.name} writes to {known.id} with epoch {lease.upload.epoch}")
        for other in lease.upload.leases:
            if other.epoch > lease.epoch and other.begun and other.overlaps(lease.lane):
                self.blame(f"a holder of {known.id} {lease.lane} writes that was taken over")

    def delivered(self, conversation: Conversation, end: BodyEnd) -> None:
        """The handler hears of the end of a body."""
        if end.cut is None:
            self.bodies.add(conversation.ask.body or b"")
            if conversation.ask.upload:
                known = self.upload(conversation.ask.upload)
                known.finished.add(conversation.ask.until)
            elif conversation.lease is not None:
                self.upload(conversation.lease.upload.id).finished.add(conversation.lease.position)

    # ---- the store and the tree

    def committed(self, change: Change, result: object, now: Session | None) -> None:
        """The session store has made a change durable."""
        upload_id = change.session.id if isinstance(change, Create) else change.id
        if isinstance(change, Create) and isinstance(result, Session) and result.id != upload_id:
            return
        known = self.upload(upload_id)
        if isinstance(change, Create):
            if not isinstance(result, Session):
                return
            known.path, known.epoch = change.session.path, change.session.epoch
            known.explicit = details_of(change.session).explicit
            self.paths[known.path] = known
        elif isinstance(change, Claim):
            if isinstance(result, Session):
                if change.epoch != known.epoch:
                    self.blame(f"{upload_id} is claimed with epoch {change.epoch}, it has {known.epoch}")
                known.epoch = result.epoch
        elif result is True and change.epoch != known.epoch:
            self.blame(f"a {type(change).__name__} of {upload_id} with epoch {change.epoch}, it has {known.epoch}")
        if now is not None:
            known.length, known.state = now.length, now.state
        if isinstance(change, Remove) and result is True:
            known.state = ""
            if not known.told:
                known.may_end = True
        if now is not None and result is True:
            if isinstance(change, Checkpoint) and now.state == OPEN:
                self._recorded(known, now)
            elif isinstance(change, Finish) and change.state == COMPLETE:
                self._finished(known, now)
            elif (
                isinstance(change, Finish)
                and known.told
                and not (known.may_end or known.complete or self._world.contested)
            ):
                self.blame(f"{upload_id} ends as {change.state}, although nobody ended it")

    def _recorded(self, known: Known, now: Session) -> None:
        node = self._safe(known)
        for start, stop in now.ranges:
            if node is None or node.settled(start, stop) is None:
                self.blame(f"{start}-{stop} of {known.id} is recorded, and not safe")

    def _finished(self, known: Known, now: Session) -> None:
        node = self._world.medium.safe(known.path)
        if (node is None or node.settled(0, now.length or 0) is None) and not known.removed:
            self.blame(f"{known.id} has a receipt, and its file is not safe")

    def published(self, path: str, node: Node) -> None:
        """A name has been made in the public tree."""
        if path in self.gone:
            self.blame(f"{path} is back, after its client was told that it is removed")
        count = self.created[path] = self.created.get(path, 0) + 1
        if count > 1 and not (path in self.paths and self.paths[path].removed):
            self.blame(f"{path} is published a second time")
        content = bytes(node.live)
        known = self.paths.get(path)
        if known is None:
            if content and content not in self.bodies:
                self.blame(f"{path} is published, and nobody sent it")
        elif known.length is None or len(content) != known.length:
            self.blame(f"{path} is published with {len(content)} of {known.length} bytes")
        elif known.length and known.length not in known.finished and content not in self.bodies:
            self.blame(f"{path} is published, and nobody sent its end")

    def after_cut(self) -> None:
        """Names that no sync covered may be gone, and may be made once more."""
        there = {path for path, _ in self._world.medium.files()}
        for path in self.created:
            if path not in there:
                self.created[path] = 0

    # ---- after every event

    def check(self) -> None:
        """Raise Violation for what was found, or is found now."""
        if self.fault is None:
            self._untouched()
        if self.fault is None:
            self._promises()
        if self.fault is not None:
            raise self.fault

    def _untouched(self) -> None:
        for known in self.known.values():
            if not known.everything.total or known.may_end:
                continue
            node = self._safe(known)
            if node is None:
                self.blame(f"{known.id}: {known.everything.spans()} was told, and the file may vanish")
                return
            if known.seen == (node.number, node.version):
                continue
            for start, stop in known.everything:
                if node.settled(start, stop) != bytes(known.fixed[start:stop]):
                    self.blame(f"{known.id}: bytes of {start}-{stop} have changed after they were told")
                    return
            known.seen = (node.number, node.version)

    def _promises(self) -> None:
        for server in self._world.servers:
            if not server.alive:
                continue
            left = server.engine._ledger._left
            if server.promised() != (sum(left.values()), len(left)):
                self.blame(f"{server.name} has promised {server.promised()}, and counts {left}")
