"""Names of the log in Redis, and its scripts, each of which is one step for every process.

Every key carries one hash tag (Redis Cluster specification, "Hash tags") and every script touches the keys of
one tag only. Pub/sub channels are no keys.

    <prefix>:{<stream id>}:log      stream: pieces, each of consecutive entries, one a line, in field `e`; its
                                    id is `<number of its last entry + 1>-0` (0-0 is no valid id)
    <prefix>:{<stream id>}:meta     hash: owner, producer, sealed (see `Sealed`), length (in entries), stop,
                                    discarded, read (when a process other than the producer last did, ms)
    <prefix>:{<digest>}:claim       string: `<stream id>:<fingerprint>`
    <prefix>:{<digest>}:chat        string: `<stream id>`
    <prefix>:{<producer>}:lease     string that expires soon after its process is gone

    <prefix>:{<stream id>}:news     channel: there is something to read
    <prefix>:{<producer>}:control   channel: `<stream id> <terminal event>` asks its producer to end a log,
                                    `<stream id>` tells that it is read elsewhere
    <prefix>:{store}:epoch          string that changes when Redis has lost its data
    <prefix>:{store}:recovering     string that stands while producers make their logs known again
"""

import hashlib
from enum import IntEnum


class Sealed(IntEnum):
    """Whether a log has its terminal event, in `meta`."""

    NO = 0
    BY_PRODUCER = 1
    AS_ASKED = 2
    """By the producer, with the event that `stop` asked for."""
    FOR_PRODUCER = 3
    """By another process, since the producer was gone: its readers may have seen more than the log holds."""


class Keys:
    """Names of keys and channels. All begin with a prefix, by which sites on one Redis are told apart."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def log(self, stream_id: str) -> str:
        return self._name(stream_id, "log")

    def meta(self, stream_id: str) -> str:
        return self._name(stream_id, "meta")

    @property
    def epoch(self) -> str:
        return self._name("store", "epoch")

    @property
    def recovering(self) -> str:
        return self._name("store", "recovering")

    def news(self, stream_id: str) -> str:
        return self._name(stream_id, "news")

    def claim(self, key: str) -> str:
        return self._name(_digest(key), "claim")

    def chat(self, chat_id: str) -> str:
        return self._name(_digest(chat_id), "chat")

    def lease(self, producer: str) -> str:
        return self._name(producer, "lease")

    def control(self, producer: str) -> str:
        return self._name(producer, "control")

    def _name(self, tag: str, kind: str) -> str:
        return f"{self._prefix}:{{{tag}}}:{kind}"


def _digest(text: str) -> str:
    """Clients choose keys, and so their length and their braces."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


# KEYS meta. ARGV owner, producer, TTL (ms). Makes a log known; again, harmlessly.
REGISTER = f"""
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'producer', ARGV[2])
redis.call('HSETNX', KEYS[1], 'sealed', '{Sealed.NO:d}')
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 0
"""

# KEYS log, meta. ARGV first sequence number, how many entries, TTL while running, TTL once sealed (ms), what
# `sealed` becomes, channel, the entries, one a line. Appends them as one piece. What stands there already
# must be the same bytes, which makes a repeated call harmless and a second producer's refused.
# Gives {"ok", stop}, {"lost", entries that are there}, or {"refused", the log's last piece}.
APPEND = f"""
local sealed, stop, length = unpack(redis.call('HMGET', KEYS[2], 'sealed', 'stop', 'length'))
if not sealed then return {{'lost', 0}} end
length = tonumber(length or 0)
local first, last = tonumber(ARGV[1]), tonumber(ARGV[1]) + tonumber(ARGV[2])
local rest = ARGV[7]
if first > length then return {{'lost', length}} end
if first < length then
  local there = {{}}
  for _, piece in ipairs(redis.call('XRANGE', KEYS[1], string.format('%.0f-0', first + 1), '+')) do
    there[#there + 1] = piece[2][2]
  end
  there = table.concat(there, '\\n')
  if there == rest or string.sub(there, 1, #rest + 1) == rest .. '\\n' then
    rest = ''
  elseif string.sub(rest, 1, #there + 1) == there .. '\\n' then
    rest = string.sub(rest, #there + 2)
  else
    sealed = 'foreign'
  end
end
if sealed == 'foreign' or (rest ~= '' and sealed ~= '{Sealed.NO:d}') then
  return {{'refused', redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1][2][2]}}
end
local is_last = ARGV[5] ~= '{Sealed.NO:d}'
if rest ~= '' then
  redis.call('XADD', KEYS[1], string.format('%.0f-0', last), 'e', rest)
  redis.call('HSET', KEYS[2], 'length', last, 'sealed', ARGV[5])
  redis.call('PUBLISH', ARGV[6], '')
elseif is_last then
  redis.call('HSET', KEYS[2], 'sealed', ARGV[5])
end
if is_last then
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
elseif length == 0 then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return {{'ok', stop or ''}}
"""

# KEYS meta. ARGV terminal entry, control channel, message. Asks the producer, which alone knows what it has
# already shown to the readers beside it. Gives -1 unknown, 0 sealed before, 1 asked first, 2 asked again.
STOP = f"""
local sealed = redis.call('HGET', KEYS[1], 'sealed')
if not sealed then return -1 end
if sealed ~= '{Sealed.NO:d}' then return 0 end
local first = redis.call('HSETNX', KEYS[1], 'stop', ARGV[1])
redis.call('PUBLISH', ARGV[2], ARGV[3])
return 2 - first
"""

# KEYS log, meta. ARGV terminal entry, TTL (ms), channel. Seals for a producer that is gone; should it come
# back, its next append is refused. Gives -1 unknown, 0 sealed before, 1 sealed now.
SEAL = f"""
local sealed, length = unpack(redis.call('HMGET', KEYS[2], 'sealed', 'length'))
if not sealed then return -1 end
if sealed ~= '{Sealed.NO:d}' then return 0 end
local last = tonumber(length or 0) + 1
redis.call('XADD', KEYS[1], string.format('%.0f-0', last), 'e', ARGV[1])
redis.call('HSET', KEYS[2], 'sealed', '{Sealed.FOR_PRODUCER:d}', 'length', last)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
redis.call('PUBLISH', ARGV[3], '')
return 1
"""

# KEYS meta. ARGV control channel of its producer, stream id. Says that a log is read here now.
MARK_READ = f"""
if redis.call('HGET', KEYS[1], 'sealed') ~= '{Sealed.NO:d}' then return 0 end
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'read', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('PUBLISH', ARGV[1], ARGV[2])
return 1
"""

# KEYS meta. Gives the milliseconds since a process other than the producer has last read; -1 for never.
IDLE = """
local read = redis.call('HGET', KEYS[1], 'read')
if not read then return -1 end
local time = redis.call('TIME')
return math.max(0, time[1] * 1000 + math.floor(time[2] / 1000) - read)
"""

# KEYS claim. ARGV value, TTL (ms), a value that counts as none. Returns the value that stands.
CLAIM = """
local there = redis.call('GET', KEYS[1])
if there and there ~= ARGV[3] then return there end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ARGV[1]
"""

# KEYS claim or chat. ARGV value, TTL (ms). A name that has moved on is left alone; a TTL of 0 deletes.
KEEP = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
"""

# KEYS epoch, recovering. ARGV a new epoch, the epoch that the caller knows or nothing, how long producers
# have to make their logs known (ms). Gives the epoch that stands, and how much is left of that time.
EPOCH = """
redis.call('SET', KEYS[1], ARGV[1], 'NX')
redis.call('EXPIRE', KEYS[1], 30 * 86400)
local epoch = redis.call('GET', KEYS[1])
if ARGV[2] ~= '' and ARGV[2] ~= epoch then redis.call('SET', KEYS[2], '', 'PX', ARGV[3]) end
return {epoch, math.max(0, redis.call('PTTL', KEYS[2]))}
"""
