"""Measurements over a checkpoint."""
