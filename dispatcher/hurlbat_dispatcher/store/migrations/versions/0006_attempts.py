"""Attempts: what was sent to workers and what came back; workers that answer in one piece."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Let a run name its last delivery, and make room for deliveries."""
    op.add_column("run", sa.Column("delivery", sa.String(48), nullable=True))
    op.add_column("worker", sa.Column("streams", sa.Integer(), server_default="1", nullable=False))
    op.create_table(
        "delivery",
        sa.Column("tenant", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("worker", sa.String(length=128), nullable=False),
        sa.Column("record", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "id", name=op.f("delivery_pkey")),
    )
    op.create_index("delivery_time", "delivery", ["tenant", "at"])
