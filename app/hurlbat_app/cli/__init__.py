"""The command line, `hurlbat`."""
