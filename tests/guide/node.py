"""The guide's JavaScript class in Node."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path

from tests.fixtures.child import Child
from tests.fixtures.namespaces import Namespace
from tests.fixtures.node import environment, node
from tests.fixtures.server import FileServer
from tests.guide import printed
from tests.guide.script import Run
from tests.guide.servers import signature


@dataclass(frozen=True, slots=True)
class NodeRun:
    child: Child

    def console(self) -> list[str]:
        return self.child.log_text().splitlines()

    def finish(self) -> list[str]:
        assert self.child.process.wait(60) == 0, self.child.log_text()
        return self.console()


@dataclass(slots=True)
class Node:
    """Runs the class in Node processes, with a few lines below it that call it; `machine` is where they run."""

    folder: Path
    machine: Namespace | None = None
    started: list[Child] = field(default_factory=list)
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    def start(self, server: FileServer, file: Path, url: str | None = None) -> Run:
        number = next(self.numbers)
        self.folder.mkdir(exist_ok=True)
        script = self.folder / f"upload-{number}.cjs"
        signed = printed.CLASS.replace(printed.SCRIPT_SIGNATURE, signature(server, "/upload/chunked"))
        script.write_text(signed + (printed.HERE / "node-driver.js").read_text(encoding="utf-8"), encoding="utf-8")
        command = [node(), str(script), f"{url or server.url}/upload/chunked", str(file), file.name]
        child = Child(
            "node",
            command if self.machine is None else self.machine.command(command),
            log=self.folder / f"node-{number}.log",
            env=environment(),
            cwd=self.folder,
        )
        self.started.append(child)
        return NodeRun(child)

    def stop(self) -> None:
        for child in self.started:
            child.stop()
