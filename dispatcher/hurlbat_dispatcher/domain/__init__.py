"""The rules: standard library only, no clock, no row, no socket. `now` is always an argument, in milliseconds."""
