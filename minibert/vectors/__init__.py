"""Hidden states to vectors.

To read: pooling.py, sentences.py, words.py, recipe.py (what a checkpoint says), similarity.py, fingerprint.py.
"""
