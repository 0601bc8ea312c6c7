"""Why an upload cannot be."""


class UploadRefused(Exception):  # noqa: N818 - a refusal, not a fault
    """An upload that breaks a rule. `code` is stable.

    exists, too_large, ticket_used_up, incomplete, upload_not_found, upload_expired, upload_lost,
    upload_taken_over, upload_overrun, chunk_differs, digest_mismatch, key_reused, length_conflict, part_missing
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
