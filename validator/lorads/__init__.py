"""lorads: what will the trainer really learn from this file, and will the loss survive it?"""

from __future__ import annotations

__version__ = "0.1.0"
