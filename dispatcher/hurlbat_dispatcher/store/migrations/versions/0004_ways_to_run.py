"""Ways to run: schedules, events, gathered submits, webhooks, and operations on many runs."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import UUID

revision = "0004"
down_revision = "0003"

_RUN = sa.String(36).with_variant(UUID(as_uuid=False), "postgresql")


def upgrade() -> None:
    """Let a run know what started it, and make room for what starts runs."""
    op.add_column("run", sa.Column("trigger", sa.Text(), nullable=True))
    ends = sa.text("until IS NULL")
    op.create_index("idempotency_run", "idempotency", ["tenant", "run"], sqlite_where=ends, postgresql_where=ends)
    for_a_time = sa.text("until IS NOT NULL")
    op.create_index("idempotency_until", "idempotency", ["until"], sqlite_where=for_a_time, postgresql_where=for_a_time)
    for table in ("rate_use", "rate_pause"):  # a throttle's key has its task before it
        with op.batch_alter_table(table) as keyed:
            keyed.alter_column("key", type_=sa.String(420), existing_type=sa.String(300), existing_nullable=False)
    later = sa.text("state = 'queued' AND ready = 0")
    queued = sa.text("state = 'queued'")
    op.drop_index("run_queued", "run")
    op.create_index("run_queued", "run", ["tenant", "id", "task"], sqlite_where=queued, postgresql_where=queued)
    op.create_index("run_later", "run", ["tenant", "id"], sqlite_where=later, postgresql_where=later)
    op.create_table(
        "schedule",
        sa.Column("tenant", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=160), nullable=False),
        sa.Column("task", sa.String(length=128), nullable=False),
        sa.Column("source", sa.String(length=8), nullable=False),
        sa.Column("expression", sa.String(length=256), nullable=True),
        sa.Column("timezone", sa.String(length=64), nullable=False),
        sa.Column("run_at", sa.BigInteger(), nullable=True),
        sa.Column("input", sa.Text(), nullable=False),
        sa.Column("metadata", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=True),
        sa.Column("missed", sa.String(length=8), nullable=False),
        sa.Column("overlap", sa.String(length=8), nullable=False),
        sa.Column("paused", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=True),
        sa.Column("last_at", sa.BigInteger(), nullable=True),
        sa.Column("last_run", _RUN, nullable=True),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "name", name=op.f("schedule_pkey")),
    )
    due = sa.text("next_at IS NOT NULL")
    op.create_index("schedule_due", "schedule", ["next_at"], sqlite_where=due, postgresql_where=due)
    op.create_table(
        "schedule_fire",
        sa.Column("tenant", sa.Integer(), nullable=False),
        sa.Column("schedule", sa.String(length=160), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("manual", sa.Integer(), nullable=False),
        sa.Column("fired_at", sa.BigInteger(), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("run", _RUN, nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "schedule", "due_at", "manual", name=op.f("schedule_fire_pkey")),
    )
    op.create_index("schedule_fire_time", "schedule_fire", ["tenant", "fired_at"])
    ran, columns = sa.text("run IS NOT NULL"), ["tenant", "schedule", "due_at"]
    op.create_index("schedule_fire_run", "schedule_fire", columns, sqlite_where=ran, postgresql_where=ran)
    op.create_table(
        "event",
        sa.Column("tenant", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(length=256), nullable=False),
        sa.Column("key", sa.String(length=256), nullable=False),
        sa.Column("scope", sa.String(length=256), nullable=True),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("metadata", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=True),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("replay_of", sa.String(length=256), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "id", name=op.f("event_pkey")),
    )
    op.create_index("event_time", "event", ["tenant", "created_at", "id"])
    op.create_index("event_key", "event", ["tenant", "key", "created_at", "id"])
    scoped = sa.text("scope IS NOT NULL")
    columns = ["tenant", "scope", "created_at", "id"]
    op.create_index("event_scope", "event", columns, sqlite_where=scoped, postgresql_where=scoped)
    op.create_table(
        "event_start",
        sa.Column("tenant", sa.Integer(), nullable=False),
        sa.Column("event", sa.String(length=256), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("task", sa.String(length=128), nullable=False),
        sa.Column("filter", sa.String(length=512), nullable=True),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("run", _RUN, nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "event", "n", name=op.f("event_start_pkey")),
    )
    op.create_table(
        "event_filter",
        sa.Column("tenant", sa.Integer(), nullable=False),
        sa.Column("task", sa.String(length=128), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("expression", sa.String(length=512), nullable=True),
        sa.Column("scope", sa.String(length=256), nullable=True),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "task", "id", name=op.f("event_filter_pkey")),
    )
    op.create_table(
        "gathering",
        sa.Column("tenant", sa.Integer(), nullable=False),
        sa.Column("task", sa.String(length=128), nullable=False),
        sa.Column("key", sa.String(length=400), nullable=False),
        sa.Column("run", _RUN, nullable=False),
        sa.Column("submits", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("first_at", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "task", "key", name=op.f("gathering_pkey")),
    )
    op.create_index("gathering_until", "gathering", ["until"])
    op.create_table(
        "webhook",
        sa.Column("tenant", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("config", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "name", name=op.f("webhook_pkey")),
    )
    op.create_table(
        "operation",
        sa.Column("tenant", sa.Integer(), nullable=False),
        sa.Column("id", _RUN, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("filter", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("matched", sa.Integer(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("skipped", sa.Integer(), nullable=False),
        sa.Column("cursor", _RUN, nullable=True),
        sa.Column("server", sa.String(length=36), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "id", name=op.f("operation_pkey")),
    )
