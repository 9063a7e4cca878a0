"""Container images: what they hold, how they are built, whether they are what they should be."""
