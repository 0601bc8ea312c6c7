"""What can stop a benchmark, each with one clear line for the person who started it."""

from __future__ import annotations


class BenchError(Exception):
    """The benchmark cannot run or cannot be trusted; the message says why and what to do."""


class UnavailableError(BenchError):
    """A server, compiler or package that a part of the benchmark needs is missing."""


class MismatchError(BenchError):
    """A server answered or stored something other than what was asked; its figures mean nothing."""
