"""Tests any worker's endpoint against the push protocol, from the outside: what a server would send, and worse."""

from hurlbat_app.conform.catalogue import CHECKS, GROUPS
from hurlbat_app.conform.examination import Audience, chosen, conform, examine
from hurlbat_app.conform.report import Report, listed, told

__all__ = ["CHECKS", "GROUPS", "Audience", "Report", "chosen", "conform", "examine", "listed", "told"]
