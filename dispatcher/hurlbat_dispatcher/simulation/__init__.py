"""A world in which the real engine runs on virtual time, with everything outside of it simulated from a seed.

One thread, one loop, one in-memory database, no sockets. A seed decides latency, order, faults, ids and jitter, so the
same seed gives the same history everywhere; hours pass in milliseconds. `Simulation` puts it together; the rest:

    loop      virtual time, and the order of what is ready
    process   what is killed or paused as a whole, at any await
    clock     the time of one host: skewed, and it may jump
    faults    what goes wrong, how often, drawn from the seed
    disk      the one database of the world, its clock, and the bus between servers
    database  one server's connection to the disk
    network   requests from anywhere to a host by its name
    wire      one answer on its way back
    trace     the lines that tell a history
"""
