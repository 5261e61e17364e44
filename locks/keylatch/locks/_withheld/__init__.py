"""Withhold parts of a network's weights: licenses carry them, the file has stand-ins.

_part      one part: a whole tensor, some of its rows, or single weights
_parts     all parts of a locked network: their gate tensors, and which domains they belong to
_influence what a network loses with each of its weights
_choice    which weights, rows or tensors a share is spent on
_seal      the lock `seal`: chosen weights replaced by plausible random ones
_domains   the lock `domains`: weights that a domain's mask withholds are zero
"""
