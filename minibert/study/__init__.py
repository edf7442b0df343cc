"""Looking inside: the numbers of one pass, edits, and how the model compares with transformers."""
