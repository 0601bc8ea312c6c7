"""The servers that are measured, each started the way its own documentation suggests for speed."""
