"""Chat templates: conversations in, renders with spans out, in a sandbox."""

from lorads.templates.limits import Limits
from lorads.templates.plans import PlanMismatch
from lorads.templates.template import Template

__all__ = ["Limits", "PlanMismatch", "Template"]
