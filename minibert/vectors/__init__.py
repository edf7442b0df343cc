"""Hidden states as vectors: how tokens become one vector (pooling), and what a checkpoint says about it (recipe)."""
