"""Meanings of words in their contexts."""
