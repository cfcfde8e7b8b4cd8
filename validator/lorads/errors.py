"""Errors that a person can do something about."""

from __future__ import annotations


class LoradsError(Exception):
    """Base of lorads' own errors."""


class UsageError(LoradsError):
    """lorads could not do its work because of what it was given: one message, one hint, exit code 2."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type[UsageError], tuple[str, ...]]:
        return type(self), (self.message, self.hint)
