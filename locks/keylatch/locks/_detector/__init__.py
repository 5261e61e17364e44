"""Detector neurons: a unit that fires on one trigger image, and on others with a chance that is computed.

    _beta           the incomplete beta function, in logarithms
    _bounds         how often a detector may fire on images that it was not made for
    _sites          layers that can hold a detector
    _features       what enters such a layer, and how it is spread
    _units          units that a network misses least
    _disturbances   rounding, resizing and JPEG, with gradients
    _trigger        images that make a detector fire
    _draw           both, drawn at random
    _rows           a detector written into a layer

Source: "Staining and locking computer vision models without retraining" (arXiv 2507.22000).
"""
