"""Losses, one file each; `gyri.catalogue` finds them.

A loss is a function (outputs, targets, class_weights=None) -> (B,): one value per image, so that the mean over a set of images does
not depend on how they were put into batches. It computes in float32, with operations that are deterministic on every device.
"""
