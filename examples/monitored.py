"""Figures for Prometheus: hits, misses by cause, and seconds of work that the caches saved."""

import time
import urllib.request

from prometheus_client import CollectorRegistry, start_http_server

import droppable
from droppable import metrics

registry = CollectorRegistry()
metrics.prometheus(registry)  # all caches of the process, by their names


@droppable.cache(name="reports")
def report(month: int) -> str:
    time.sleep(0.05)
    return f"report of month {month}"


for _ in range(10):
    report(11)
server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
page = urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics").read().decode()
print("\n".join(line for line in page.splitlines() if "reports" in line and ("hits" in line or "saved" in line)))
assert 'droppable_cache_hits_total{cache="reports"} 9.0' in page
server.shutdown()  # for this program, which ends. A service leaves the server alone
server.server_close()
