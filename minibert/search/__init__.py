"""Search: an index of vectors."""
