"""The server's outside: the HTTP API and the command line. Everything is decided behind the dispatcher's one door."""
