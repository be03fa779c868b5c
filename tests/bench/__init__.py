"""What a delta and a stream cost, here and in the peers: `python -m tests.bench --quick`.

Four kinds of process, so that none measures itself:

    load.py  ──▶  the server under test (servers.py)  ──▶  mock.py
        ▲                      ▲                             ▲
        └──────────── measure.py, by sockets and /proc ──────┘

`mock.py` is an upstream that sends bytes prepared once; `load.py` asks, counts and takes times; `servers.py`
knows ours, its peers and other checkouts of ours, which `launch.py` starts and ends; `proc.py` reads what the
kernel says of a process; `measure.py` runs the rounds, `board.py` a workload of its own; `figures.py` holds
what they find; `report.py` and `plot.py` tell the outcome. Linux only.
"""
