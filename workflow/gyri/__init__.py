"""gyri: an honest, reproducible comparison of deep-learning architectures on neuroimages."""

__version__ = "0.1.0"
