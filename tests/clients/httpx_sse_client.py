"""httpx-sse decodes and leaves reconnecting to its user; the loop is that of its README, over a POST."""

import json
import sys
import time

import httpx
from httpx_sse import connect_sse

order = json.loads(sys.argv[1])


def report(**line: object) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main() -> None:
    body = {"messages": [{"role": "user", "content": order["question"]}]}
    last_event_id, retry_seconds, finished = "", 0.5, False
    with httpx.Client(timeout=30) as client:
        while not finished:
            headers = {"Idempotency-Key": order["key"]}
            if last_event_id:
                headers["Last-Event-ID"] = last_event_id
            try:
                with connect_sse(client, "POST", f"{order['url']}/ask", json=body, headers=headers) as source:
                    for sse in source.iter_sse():
                        last_event_id = sse.id
                        retry_seconds = sse.retry / 1000 if sse.retry is not None else retry_seconds
                        report(id=sse.id, data=sse.data)
                        finished = sse.json()["type"] in {"done", "error"}
            except httpx.TransportError:
                time.sleep(retry_seconds)
    report(ended="finished")


main()
