"""Many texts through the model, fast.

To read: rows.py (the model's input), stream.py, packing.py (texts end to end), device.py, fused.py (a layer in fewer
operations), twin.py (the model with fast layers), engine.py (the passes).
"""
