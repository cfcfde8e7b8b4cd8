"""Trainers: ids and labels exactly as each library builds them. One module a trainer, with its versions in
``TRAINERS``, newest first; modules whose names begin with an underscore help them."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from lorads.errors import UsageError
from lorads.trainers._own import own_options
from lorads.trainers.base import LabelBatch, Labeller, Place, Segments, Trainer, TrainOptions

__all__ = [
    "LabelBatch",
    "Labeller",
    "Place",
    "Segments",
    "TrainOptions",
    "Trainer",
    "get",
    "names",
    "own_options",
    "versions",
]


def names() -> list[str]:
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name.replace("_", "-") for name in found if name != "base" and not name.startswith("_"))


def versions(name: str) -> tuple[Trainer, ...]:
    """A trainer's versions that lorads reproduces, newest first. Raises ``UsageError`` for one that it does not."""
    if name not in names():
        raise UsageError(f'lorads does not reproduce a trainer called "{name}"', f"known: {', '.join(names())}")
    found: tuple[Trainer, ...] = import_module(f"lorads.trainers.{name.replace('-', '_')}").TRAINERS
    return found


def get(name: str) -> Trainer:
    """The trainer called ``NAME`` (its newest version) or ``NAME@VERSION``. Raises ``UsageError`` where lorads does not
    reproduce it."""
    name, at, version = name.partition("@")
    found = versions(name)
    if not at:
        return found[0]
    for trainer in found:
        if trainer.version == version:
            return trainer
    known = ", ".join(f"{name}@{trainer.version}" for trainer in found)
    raise UsageError(f'lorads does not reproduce version "{version}" of {name}', f"known: {known}")
