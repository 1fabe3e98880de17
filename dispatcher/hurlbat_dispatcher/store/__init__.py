"""Everything that knows SQL: the schema, the statements, two drivers and the migrations."""
