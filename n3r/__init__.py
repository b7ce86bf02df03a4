"""n3r: risk of first-order fraud from identity strings and tabular features."""

import os

from n3r.process import settle

__version__ = "0.1.0"

settle(os.environ)
