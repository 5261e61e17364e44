"""Vectors of every format: one file, one failure, its outcome on top. `generate.py` makes them, README.md explains."""
