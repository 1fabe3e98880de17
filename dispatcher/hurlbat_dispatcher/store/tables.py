"""All tables: each stands in the module that it belongs to, and the schema is complete once those are loaded."""

from hurlbat_dispatcher.store import deliveries, graph_schema, tokens
from hurlbat_dispatcher.store.schema import metadata

__all__ = ["deliveries", "graph_schema", "metadata", "tokens"]
