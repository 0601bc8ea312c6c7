"""Seeds that once broke a rule, with what they found. They are played for ever.

A seed means what it meant only as long as the simulation draws the same numbers in the same order; where that had to
change, the unit test named here keeps what was found.
"""

from __future__ import annotations

from typing import Final

ONCE_BROKEN: Final[dict[int, str]] = {
    319: "a server that has not heard of its own commit knows less than another that reads the store",
    346: "a creation that is answered late, after another server has published the upload",
    361: "storage_failed for a body whose upload was let go before its sync"
    " (test_a_body_whose_checkpoint_comes_after_a_release_was_taken_over)",
    902: "a creation that was taken over by its own repeat ended the upload"
    " (test_a_repeated_creation_keeps_what_it_took_over)",
    1782: "a repeated creation told the last offset of an upload that was not published"
    " (test_a_repeated_creation_tells_the_last_offset_when_the_file_is_there)",
    2150: "an upload was published while its end was on the way to the store"
    " (test_nothing_is_published_while_its_end_is_under_way)",
    20414: "a creation that came late ended the upload of its own repeat"
    " (test_a_late_creation_leaves_its_upload_to_its_repeat)",
    41086: "a length that is recorded, and that the server itself has not heard of yet",
    3882: "a creation that is answered late, after another server has had the upload and let it go"
    " (test_a_creation_answered_late_does_not_write_with_an_old_epoch)",
    4110: "storage_failed for a body whose upload another had completed"
    " (test_a_body_that_goes_on_after_the_upload_was_completed_is_told_so)",
}
