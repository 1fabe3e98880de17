"""Flow control: lanes by all that their runs draw on, rate limits, and pauses of tasks and keys."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_PLAIN = "44136fa355b3678a1146ad16f7e8649e94fb4fc2"
"""The digest of `{}`: the lanes that there were draw on slots only."""


def upgrade() -> None:
    """Say of each lane what its runs draw on, and make room for rate limits and pauses."""
    with op.batch_alter_table("lane") as batch:
        batch.drop_constraint("lane_unique", type_="unique")
        batch.alter_column("budgets", new_column_name="draws", existing_type=sa.Text(), existing_nullable=False)
        batch.add_column(sa.Column("digest", sa.String(64), nullable=False, server_default=_PLAIN))
        batch.add_column(sa.Column("used_at", sa.BigInteger(), nullable=False, server_default="0"))
    op.execute("UPDATE lane SET draws = '{}'")
    with op.batch_alter_table("lane") as batch:
        batch.alter_column("digest", server_default=None, existing_type=sa.String(64), existing_nullable=False)
        batch.alter_column("used_at", server_default=None, existing_type=sa.BigInteger(), existing_nullable=False)
        batch.create_unique_constraint("lane_unique", ["tenant", "task", "digest"])
    op.add_column("run", sa.Column("joined_at", sa.BigInteger(), nullable=True))
    op.execute("UPDATE run SET joined_at = due_at WHERE ready = 1 OR attempt > 0")
    op.add_column("task", sa.Column("paused", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("worker", sa.Column("pinned", sa.Integer(), nullable=True))
    op.create_table(
        "rate_limit",
        sa.Column("tenant", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column("most", sa.BigInteger(), nullable=False),
        sa.Column("duration", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "key", name=op.f("rate_limit_pkey")),
    )
    op.create_table(
        "rate_use",
        sa.Column("tenant", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=300), nullable=False),
        sa.Column("duration", sa.BigInteger(), nullable=False),
        sa.Column("bucket", sa.BigInteger(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "key", "duration", "bucket", name=op.f("rate_use_pkey")),
    )
    op.create_table(
        "rate_pause",
        sa.Column("tenant", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=300), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "key", name=op.f("rate_pause_pkey")),
    )
