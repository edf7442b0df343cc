"""Hidden states to answers."""
