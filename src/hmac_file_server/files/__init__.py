"""The published tree: paths, spooling, publishing, deduplication, reading, expiry and free space.

`contract` says what every store offers, `local` is the store on a POSIX file system, `paths` is the only
place where a path is built from text of a user.
"""
