"""Trainers: ids and labels exactly as each library builds them. One module a trainer, with an instance ``TRAINER``."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from lorads.errors import UsageError
from lorads.trainers.base import LabelBatch, Segments, Trainer, TrainOptions

__all__ = ["LabelBatch", "Segments", "TrainOptions", "Trainer", "get", "names"]


def names() -> list[str]:
    return [module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__) if module.name != "base"]


def get(name: str) -> Trainer:
    """The trainer of that name. Raises ``UsageError`` for one that lorads does not reproduce."""
    if name not in names():
        raise UsageError(f'lorads does not reproduce a trainer called "{name}"', f"known: {', '.join(names())}")
    trainer: Trainer = import_module(f"lorads.trainers.{name.replace('-', '_')}").TRAINER
    return trainer
