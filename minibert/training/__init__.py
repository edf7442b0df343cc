"""Training: packed rows, an objective, and the loop over steps."""
