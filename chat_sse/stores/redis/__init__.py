"""The log on Redis Streams: any process reads, resumes and stops what any other has asked for.

Begin with `store.py`.

    store.py      the Store: names and claims, stops, and the round trip that everything else shares
      outbox.py     this process's own logs, on their way to Redis
      inbox.py      other processes' logs, as far as they are read here
        logs.py       the two handles: ProducedLog, MirroredLog
      lease.py      signs of life, an outage's end, and the burial of the dead
    pubsub.py     one connection that hears what is announced
    client.py     all other commands, bounded in time
      commands.py   what one process says
        scripts.py    names of keys and channels, and what is one step (Lua)

What differs from memory:

- The producer appends to a log in its own memory, and its readers there read that one: no delta waits for
  Redis. One task sends what is new of all logs in one round trip, and fetches in the same one what readers
  here want of other processes' logs. What nobody reads elsewhere is sent twice a second. Redis may go away in
  mid-answer and come back, even empty or as a replica that lacks the last second: the producer sends what is
  missing. A sealed log leaves the producer's memory a second or two after Redis has all of it. Should Redis
  lose its end after that, its producer gives it one as soon as it is read elsewhere.
- A reader elsewhere says so, is woken by Pub/Sub and fetches from the stream. It may have seen more beside
  the producer than Redis has yet: then it waits.
- A producer holds a lease. When it is gone, a reader of one of its logs seals it with a retryable error. One
  that was frozen shows nothing more of a log before Redis has confirmed that nobody has sealed it.
- A stop is asked of the producer, which knows what its readers have seen; sealed over if it does not answer.
- Redis keeps a sealed log for its time to live. The caps are memory's: here `maxmemory` is the operator's.
  With an eviction policy that takes these keys, answers vanish early; `noeviction` refuses new ones instead.
"""
