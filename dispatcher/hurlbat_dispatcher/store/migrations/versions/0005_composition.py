"""Composition: nodes and children of runs, shapes of workflows, and what runs wait for."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import UUID

revision = "0005"
down_revision = "0004"

_RUN = sa.String(36).with_variant(UUID(as_uuid=False), "postgresql")
_COUNTER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Let a run be a node or a child, and make room for workflows."""
    for name, kind in (
        ("node", sa.String(128)),
        ("was_node", sa.String(128)),
        ("child_key", sa.String(200)),
        ("cancelled_by", sa.String(16)),
        ("awaited", sa.Integer()),
    ):
        op.add_column("run", sa.Column(name, kind, nullable=True))
    children = sa.text("parent IS NOT NULL")
    op.create_index("run_parent", "run", ["tenant", "parent", "id"], sqlite_where=children, postgresql_where=children)
    nodes = sa.text("node IS NOT NULL")
    op.create_index(
        "run_node", "run", ["tenant", "parent", "node"], unique=True, sqlite_where=nodes, postgresql_where=nodes
    )
    child_keys = sa.text("task = ''")
    op.create_index(
        "idempotency_child", "idempotency", ["tenant", "run"], sqlite_where=child_keys, postgresql_where=child_keys
    )
    below = sa.text("root IS NOT NULL")
    op.create_index("run_root", "run", ["tenant", "root", "id"], sqlite_where=below, postgresql_where=below)
    of_graphs = sa.text("kind <> 'task'")
    op.create_index("run_kind", "run", ["tenant", "kind", "id"], sqlite_where=of_graphs, postgresql_where=of_graphs)
    op.add_column("task", sa.Column("removed_at", sa.BigInteger(), nullable=True))
    op.create_table(
        "shape",
        sa.Column("tenant", sa.Integer(), nullable=False),
        sa.Column("task", sa.String(length=128), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("graph", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "task", "version", name=op.f("shape_pkey")),
    )
    op.create_table(
        "wait",
        sa.Column("tenant", sa.Integer(), nullable=False),
        sa.Column("run", _RUN, nullable=False),
        sa.Column("action", sa.String(length=8), nullable=False),
        sa.Column("clause", sa.Integer(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("key", sa.String(length=256), nullable=True),
        sa.Column("scope", sa.String(length=256), nullable=True),
        sa.Column("expression", sa.String(length=512), nullable=True),
        sa.Column("since", sa.BigInteger(), nullable=True),
        sa.Column("due_at", sa.BigInteger(), nullable=True),
        sa.Column("met_at", sa.BigInteger(), nullable=True),
        sa.Column("event", sa.String(length=256), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "run", "action", "clause", "place", name=op.f("wait_pkey")),
    )
    listening = sa.text("met_at IS NULL AND key IS NOT NULL")
    op.create_index(
        "wait_event", "wait", ["tenant", "key", "scope"], sqlite_where=listening, postgresql_where=listening
    )
    sleeping = sa.text("met_at IS NULL AND due_at IS NOT NULL")
    op.create_index("wait_due", "wait", ["due_at"], sqlite_where=sleeping, postgresql_where=sleeping)
    met = sa.text("event IS NOT NULL")
    op.create_index("wait_met", "wait", ["tenant", "event"], sqlite_where=met, postgresql_where=met)
    op.create_table(
        "news",
        sa.Column("n", _COUNTER, autoincrement=True, nullable=False),
        sa.Column("tenant", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("subject", sa.String(length=256), nullable=False),
        sa.PrimaryKeyConstraint("n", name=op.f("news_pkey")),
    )
