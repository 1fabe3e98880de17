"""Metrics, in Prometheus' words. Counted where things happen, read by `/metrics`."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from hurlbat_dispatcher.turn.ledger import Ledger


class Telemetry:
    """The metrics of one engine, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._accepted = Counter("hurlbat_runs_accepted", "Runs accepted.", registry=self._registry)
        self._published = Counter("hurlbat_events_published", "Events taken in.", registry=self._registry)
        self._started = Counter("hurlbat_attempts_started", "Attempts started.", registry=self._registry)
        self._finished = Counter(
            "hurlbat_runs_finished", "Runs finished, by state.", ["state"], registry=self._registry
        )
        self._put_back = Counter(
            "hurlbat_runs_put_back", "Attempts that ended without a result.", registry=self._registry
        )
        self._turns = Histogram(
            "hurlbat_turn_operations",
            "Operations in a turn.",
            buckets=(1, 4, 16, 64, 128, 256),
            registry=self._registry,
        )
        self._in_flight = Gauge(
            "hurlbat_attempts_in_flight", "Attempts that are with workers.", registry=self._registry
        )
        self._queued = Gauge("hurlbat_operations_queued", "Operations that wait for a turn.", registry=self._registry)

    def committed(self, ledger: Ledger, operations: int) -> None:
        """Count what a turn did."""
        self._accepted.inc(len(ledger.inserts))
        self._published.inc(len(ledger.events))
        self._started.inc(len(ledger.deliveries))
        self._put_back.inc(len(ledger.put_backs))
        self._turns.observe(operations)
        for values in ledger.ends:
            self._finished.labels(values[0]).inc()

    def text(self, *, in_flight: int, queued: int) -> bytes:
        """Return all metrics in Prometheus' text format."""
        self._in_flight.set(in_flight)
        self._queued.set(queued)
        return generate_latest(self._registry)
