"""Show what a server and a worker do together, with nothing but this package installed."""
