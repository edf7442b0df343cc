"""Many texts through the model, fast.

To read: rows.py (texts as the model gets them), stream.py, packing.py (texts end to end), device.py, fused.py (a layer
as a CPU likes it), twin.py, engine.py (the passes).
"""
