"""One turn of the crank: what changes a run's state is an operation, and a turn is one transaction of many."""
