"""`hurlbat dev`: the app in a process of its own that starts again when a file changes, workers, and what is told."""
