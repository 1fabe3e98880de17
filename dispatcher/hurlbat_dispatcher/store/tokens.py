"""API tokens, of which only a digest is stored."""

from collections.abc import Generator

import sqlalchemy as sa

from hurlbat_dispatcher.store.schema import Millis, Name, metadata
from hurlbat_dispatcher.store.statement import Ask, DatabaseNow, Rows, Statement, bind

token = sa.Table(
    "token",
    metadata,
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("tenant", sa.Integer, nullable=False),
    sa.Column("name", Name, nullable=False),
    sa.Column("scopes", sa.Text, nullable=False),
    sa.Column("created_at", Millis, nullable=False),
    sa.Column("expires_at", Millis),
    sa.Column("revoked_at", Millis),
)

_COUNT = Statement(sa.select(sa.func.count()).select_from(token))
_ALL = Statement(
    sa.select(token.c.digest, token.c.tenant).where(
        token.c.revoked_at.is_(None), sa.or_(token.c.expires_at.is_(None), token.c.expires_at > DatabaseNow())
    )
)
_INSERT = Statement(
    sa.insert(token).values(
        digest=bind("digest", sa.String()),
        tenant=bind("tenant", sa.Integer()),
        name=bind("name", sa.String()),
        scopes=sa.literal_column("'*'"),
        created_at=DatabaseNow(),
    ),
    ("digest", "tenant", "name"),
)


def good_tokens() -> Generator[Ask, Rows, dict[str, int]]:
    """Read the digests of the tokens that are neither revoked nor expired, each with its tenant."""
    rows = yield _ALL.fetch()
    return {row[0]: row[1] for row in rows}


def keep_first_token(digest: str, tenant: int) -> Generator[Ask, Rows, bool]:
    """Store a token unless there is one already; tell whether it was stored."""
    rows = yield _COUNT.fetch()
    if rows[0][0]:
        return False
    yield _INSERT.write([(digest, tenant, "first")])
    return True
