"""Texts to vectors, fast, and what is done with them.

To read: packing.py (texts end to end), pooling.py, encode.py (the passes), words.py, recipe.py (what a checkpoint
says), inference.py (the layers as a CPU likes them), similarity.py; and on these index.py, senses.py and files.py.
"""
