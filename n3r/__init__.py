"""n3r: risk of first-order fraud from identity strings and tabular features."""

__version__ = "0.1.0"
