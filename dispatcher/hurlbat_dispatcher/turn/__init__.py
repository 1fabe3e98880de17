"""One turn of the crank: everything that changes a run's state is an operation, and a turn is one transaction of many."""
