#!/usr/bin/env python3
"""Steady ingest with retries and a stream of questions against a cluster, while a command disturbs it.

Every answer is held against what was acked: it is complete, counts everything that was acked before it was asked, nothing that was
not sent, and never less than the answer before. A client goes to another gateway or query API where it cannot reach one, as a load
balancer would, and sends a batch again under the same ids until it is acked. At the end every event counts once and the ledger
balances. Prints one line of figures; exit code 1 where something does not hold.

    cluster_under_load.py --port-offset N [--may-refuse] [--same-map | --new-map-within S] NAME COMMAND...
"""

import argparse
import itertools
import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

NAMESPACE = "cluster_under_load"
BATCH = 100
BEFORE_S, AFTER_S, CATCH_UP_S = 3.0, 5.0, 60.0
NOT_REACHED = 0


def call(url, body=None, timeout=15):
    """The status and the JSON of an answer; NOT_REACHED where none came."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"{}")
    except (OSError, ValueError) as error:
        return NOT_REACHED, {"error": str(error)}


class Load:
    def __init__(self, offset):
        at = lambda port: f"http://127.0.0.1:{port + offset}"
        self.gateways, self.query_apis = [at(8088), at(8188)], [at(8081), at(8181)]
        self.control_plane, self.watermark = at(8001), at(8084)
        self.table = f"t{time.time_ns()}"
        self.began = time.time_ns() // 1000
        self.acked = self.sent = self.answers = self.refused = 0
        self.slowest = 0.0
        self.last_refusal = None
        self.wrong = []
        self.stopped = threading.Event()
        self.map_versions = []

    def since(self):
        return round(time.time() - self.began / 1e6, 2)

    def ingest(self):
        for number in itertools.count():
            if self.stopped.is_set():
                return
            event = lambda i: {
                "namespace": NAMESPACE,
                "table": self.table,
                "event_time": self.began + number * BATCH + i,
                "event_id": f"{number}-{i}",
                "dimensions": {"region": f"r{i % 7}"},
                "metrics": {"value": 1.0},
            }
            events = {"events": [event(i) for i in range(BATCH)]}
            self.sent += BATCH
            for attempt in itertools.count(number):
                status, answer = call(f"{self.gateways[attempt % 2]}/v1/events", events)
                if status == 200:
                    break
                if status != NOT_REACHED:
                    self.refused += 1
                    self.last_refusal = (self.since(), status, answer.get("error"))
                if status not in (NOT_REACHED, 429, 503):
                    self.wrong.append((self.since(), "a batch was refused for good", status, answer))
                time.sleep(0.1)
            self.acked += BATCH
            time.sleep(0.05)

    def ask(self, first):
        question = {
            "namespace": NAMESPACE,
            "table": self.table,
            "start_time": 0,
            "end_time": 4_000_000_000_000_000,
            "aggregates": [{"fn": "count"}],
            "timeout_ms": 5000,
        }
        before = 0
        while not self.stopped.is_set():
            began = time.time()
            for attempt in (first, first + 1):
                status, answer = call(f"{self.query_apis[attempt % 2]}/v1/query", question)
                if status != NOT_REACHED:
                    break
            self.slowest = max(self.slowest, time.time() - began)
            if status != 200 or not answer["receipt"]["complete"]:
                self.wrong.append((self.since(), "no complete answer", status, answer.get("error")))
            else:
                count = answer["rows"][0]["count"] if answer["rows"] else 0
                if not before <= count <= self.sent:
                    self.wrong.append((self.since(), "counted", count, "before", before, "sent", self.sent))
                before = max(before, count)
                self.answers += 1
            time.sleep(0.1)

    def watch_map(self):
        while not self.stopped.is_set():
            status, cluster = call(f"{self.control_plane}/v1/cluster", timeout=2)
            if status == 200:
                version = cluster["placement"]["version"]
                if not self.map_versions or self.map_versions[-1][1] != version:
                    self.map_versions.append((time.time(), version))
            time.sleep(0.05)

    def count_at_last(self):
        """Waits until both query APIs count all that was acked; gives what they count at last."""
        end = time.time() + CATCH_UP_S
        while True:
            question = {
                "namespace": NAMESPACE, "table": self.table, "start_time": 0, "end_time": 4_000_000_000_000_000,
                "aggregates": [{"fn": "count"}],
            }
            counts = [call(f"{query_api}/v1/query", question)[1].get("rows") for query_api in self.query_apis]
            counts = [rows[0]["count"] if rows else None for rows in counts]
            _, ledger = call(f"{self.watermark}/v1/ledger/{NAMESPACE}/{self.table}")
            settled = counts == [self.acked] * 2 and ledger.get("balanced") is True and ledger.get("live") == self.acked
            if settled or time.time() > end:
                return settled, counts, ledger
            time.sleep(0.5)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port-offset", type=int, default=0)
    parser.add_argument("--may-refuse", action="store_true", help="gateways may answer 503 or 429 meanwhile")
    parser.add_argument("--same-map", action="store_true", help="no partition moves")
    parser.add_argument("--new-map-within", type=float, metavar="S", help="partitions move within so many seconds")
    parser.add_argument("name")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    load = Load(arguments.port_offset)
    ingesting = threading.Thread(target=load.ingest)
    ingesting.start()
    while load.acked < BATCH:
        time.sleep(0.05)
    # The first answer may come before the new table is known everywhere.
    time.sleep(1)
    others = [threading.Thread(target=load.ask, args=(i,)) for i in range(2)] + [threading.Thread(target=load.watch_map)]
    for thread in others:
        thread.start()
    time.sleep(BEFORE_S)
    disturbed = time.time()
    disturbing = subprocess.run(arguments.command, stdout=subprocess.DEVNULL, check=False)
    time.sleep(AFTER_S)
    load.stopped.set()
    for thread in [ingesting, *others]:
        thread.join()
    wrong = load.wrong
    if disturbing.returncode != 0:
        wrong.append(("the command failed with", disturbing.returncode))
    settled, counts, ledger = load.count_at_last()
    if not settled:
        wrong.append(("at last", counts, "of", load.acked, ledger))
    moved = [at - disturbed for at, _ in load.map_versions[1:]]
    if arguments.same_map and moved:
        wrong.append(("partitions moved", load.map_versions))
    if arguments.new_map_within and not (moved and moved[0] <= arguments.new_map_within):
        wrong.append(("no new map in time", moved))
    if load.refused and not arguments.may_refuse:
        wrong.append(("events were refused", load.refused, load.last_refusal))
    print(
        f"{arguments.name}: {load.acked} events acked, {load.refused} refusals; {load.answers} answers,",
        f"the slowest {load.slowest * 1000:.0f} ms;",
        f"new maps after {', '.join(f'{after:.1f} s' for after in moved) or '-'};",
        f"{len(wrong)} things wrong",
    )
    for what in wrong[:5]:
        print("  ", what)
    sys.exit(bool(wrong))


main()
