"""The API reference that people read: `openapi.yaml` as one page of HTML, without scripts and without anybody else."""

from hurlbat_app.reference.page import Page, reference

__all__ = ["Page", "reference"]
