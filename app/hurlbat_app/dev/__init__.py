"""`hurlbat dev --app`: the app in a process of its own that starts again when a file changes, and what it tells."""
