"""Measure throughput and latency of a server, with server, worker and clients in processes of their own."""
