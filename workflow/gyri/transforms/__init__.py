"""Transforms of images: preprocessing and its inverse, normalization, augmentation."""
