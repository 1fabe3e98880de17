"""Servers that are about to stop say so, and are given no more work."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add what a server says of itself."""
    op.add_column("dispatcher", sa.Column("stopping", sa.Integer(), nullable=False, server_default="0"))
