"""Findings and the rules that make them."""

from __future__ import annotations

from lorads.findings.finding import Comparison, Finding, RowView, Stretch, Token
from lorads.findings.report import Input, Report, Summary, TokenizerInfo, TrainerInfo
from lorads.findings.rule import DatasetRule, FixKind, Row, RowRule, Rule, Severity, escape, show

__all__ = [
    "Comparison",
    "DatasetRule",
    "Finding",
    "FixKind",
    "Input",
    "Report",
    "Row",
    "RowRule",
    "RowView",
    "Rule",
    "Severity",
    "Stretch",
    "Summary",
    "Token",
    "TokenizerInfo",
    "TrainerInfo",
    "escape",
    "show",
]
