"""Alembic asks for this file; migrations are run by `hurlbat_dispatcher.store.migrate`, which configures its own environment."""
