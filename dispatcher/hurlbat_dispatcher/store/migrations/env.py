"""Alembic asks for this file; `hurlbat_dispatcher.store.migrate` runs the migrations in an environment of its own."""
