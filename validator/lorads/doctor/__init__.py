"""What the libraries installed in an environment build, against what the tokenizer's files say."""

from __future__ import annotations

from lorads.doctor.diagnosis import Diagnosis, Trouble
from lorads.doctor.examine import examine

__all__ = ["Diagnosis", "Trouble", "examine"]
