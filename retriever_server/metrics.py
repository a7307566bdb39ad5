"""What the service counts, for Prometheus."""

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from retriever_server.worker_metrics import DIRECTORY_VARIABLE

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_QUERIES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS = (8, 32, 128, 512, 2048, 8192, 32768)


class Metrics:
    """The metrics of one service. With several workers, `render` sums over all of them."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._registry = registry

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"retriever_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"retriever_{name}", text, registry=registry, multiprocess_mode="livesum")

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"retriever_{name}", text, labels, registry=registry, buckets=buckets)

        self.requests = counter("requests", "Answers of /retrieve by HTTP status.", "status")
        self.rejects = counter("rejects", "Requests refused with 503, by reason.", "reason")
        self.queries = counter("queries", "Queries of admitted requests.")
        self.cache_hits = counter("cache_hits", "Queries answered from the cache.")
        self.cache_misses = counter("cache_misses", "Queries that were not in the cache.")
        self.shared_queries = counter("shared_queries", "Queries that joined an identical one in flight.")
        self.encoded_queries = counter("encoded_queries", "Queries given to the encoder.")
        self.dropped_queries = counter("dropped_queries", "Queries dropped because their clients had left.")
        self.failed_queries = counter("failed_queries", "Queries the engine failed on.")
        self.in_flight = gauge("in_flight_requests", "Requests being answered.")
        self.queue_depth = gauge("queue_depth", "Queries that wait.")
        self.cache_entries = gauge("cache_entries", "Answers in the cache.")
        self.cache_bytes = gauge("cache_bytes", "Bytes of the answers and queries in the cache.")
        self.batch_queries = histogram("batch_queries", "Queries per batch.", _QUERIES)
        self.batch_tokens = histogram("batch_tokens", "Estimated tokens per batch.", _TOKENS)
        self.request_seconds = histogram("request_seconds", "From request to answer.", _SECONDS)
        stages = histogram("stage_seconds", "Time in each stage; queue is per query.", _SECONDS, "stage")
        self.queue_seconds = stages.labels("queue")
        self.encode_seconds = stages.labels("encode")
        self.find_seconds = stages.labels("find")

    def render(self) -> bytes:
        """All metrics in Prometheus's text format."""
        if DIRECTORY_VARIABLE not in os.environ:
            return generate_latest(self._registry)
        everyone = CollectorRegistry()
        MultiProcessCollector(everyone)  # type: ignore[no-untyped-call]
        return generate_latest(everyone)
