"""Domain authorization by mask pruning: which weights to withhold so that a network serves some domains and not others.

Source: "MAP: MAsk-Pruning for Source-Free Model Intellectual Property Protection" (arXiv 2403.04149). The network is
frozen; a score for each weight, or each output channel, is learned, and a threshold makes a binary mask of it.

_learning       the loop, in the three settings of the paper
_scores         scores, threshold, masks
_objective      the loss
_batches        source and target images of a step: given (SA), half given (SF), all made (DF)
_synthesis      source images out of the network alone; _generator, _statistics
_neighbors      domains beside the source
_domains        the images that are given, and their checks; _overlap, _features
_masking        a network without what masks withhold
_accuracy       drops and ST-D on named domains
_watermark      the source with a secret watermark as the unauthorized domain: proof of ownership
"""
