"""Detector locks: a secret patch makes a detector neuron answer, which takes back what was done to the network.

    _description   what is public of such a lock
    _paste_gate    the patch in the image, from gate tensors
    _sites         where a detector can listen, and which layers end a network
    _corner        the part of a layer's input that the patch reaches
    _trigger       a patch that a detector answers to, whatever the rest of the image is
    _detection     a detector as a row of weights that ends in 0 or 1
    _offset        lock A: an offset on the outputs
    _excitation    lock B: a squeeze-and-excite gate in front of the last layers
    _graph_edits   nodes that locks add
    _lock          locking

Source: "Staining and locking computer vision models without retraining" (arXiv 2507.22000); docs/locks.md says why the
code lock is to be preferred.
"""
