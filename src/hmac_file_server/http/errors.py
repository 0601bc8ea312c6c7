"""What a client got wrong on the wire, as an exception with the answer it earns."""


class HttpError(Exception):
    """A request that cannot be served; the connection is closed after the answer.

    `status` is the HTTP status, `code` the stable word of the problem document, `detail` one sentence
    that is safe to show to the client.
    """

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(f"{status} {code}: {detail}")
        self.status = status
        self.code = code
        self.detail = detail
