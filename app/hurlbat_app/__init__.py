"""The server's outside: the HTTP API and the command line. Everything is decided behind `hurlbat_dispatcher`'s one door."""
