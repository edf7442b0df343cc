"""Hidden states become vectors.

To read: pooling.py, recipe.py (what a checkpoint says), similarity.py, sentences.py, words.py, fingerprint.py.
"""
