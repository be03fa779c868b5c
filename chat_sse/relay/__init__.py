"""From an upstream to a log, and from a log to its readers; the only place that starts an answer's tasks.

`relay` starts, stops and drains answers, `answer` is one running answer, `readers` end it when nobody reads
it any more, `deadlines` bound its waits.

May import: limits, stores, upstreams and what is below them. Begin with `relay.py`.
"""
