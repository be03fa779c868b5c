"""Names of the log in Redis, and its scripts, each of which is one step for every process.

Every key carries one hash tag (Redis Cluster specification, "Hash tags") and every script touches the keys of
one tag only. Pub/sub channels are no keys.

    <prefix>:{<stream id>}:log      stream: entry `<sequence number + 1>-0`, field `e` (0-0 is no valid id)
    <prefix>:{<stream id>}:meta     hash: owner, producer, sealed (see `Sealed`), stop,
                                    discarded
    <prefix>:{<digest>}:claim       string: `<stream id>:<fingerprint>`
    <prefix>:{<digest>}:chat        string: `<stream id>`
    <prefix>:{<stream id>}:read     string whose age tells when a process other than the producer last read
    <prefix>:{<producer>}:lease     string that expires soon after its process is gone

    <prefix>:{<stream id>}:news     channel: there is something to read
    <prefix>:{<producer>}:control   channel: `<stream id> <terminal event>` asks its producer to end an answer
"""

import hashlib
from enum import IntEnum


class Sealed(IntEnum):
    """Whether a log has its terminal event, in `meta`."""

    NO = 0
    BY_PRODUCER = 1
    AS_ASKED = 2
    """By the producer, with the event that `stop` asked for."""


class Keys:
    """Names of keys and channels. All begin with a prefix, by which sites on one Redis are told apart."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def log(self, stream_id: str) -> str:
        return self._name(stream_id, "log")

    def meta(self, stream_id: str) -> str:
        return self._name(stream_id, "meta")

    def read(self, stream_id: str) -> str:
        return self._name(stream_id, "read")

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


# KEYS log, meta. ARGV first sequence number, TTL while running, TTL once sealed (ms), what `sealed` becomes
# (not "0" if the last entry is terminal), channel, entries. The explicit ids fence: what stands there already
# must be the same bytes, which makes a repeated call harmless and a second producer's refused.
# Gives {"ok", stop}, {"lost", entries that are there}, or {"refused", the log's last entry}.
APPEND = """
local meta = redis.call('HMGET', KEYS[2], 'sealed', 'stop')
if not meta[1] then return {'lost', 0} end
local length, first = redis.call('XLEN', KEYS[1]), tonumber(ARGV[1])
if first > length then return {'lost', length} end
for i = 6, #ARGV do
  local number = first + i - 5
  local id = string.format('%.0f-0', number)
  if number <= length then
    local there = redis.call('XRANGE', KEYS[1], id, id)[1]
    if not there or there[2][2] ~= ARGV[i] then meta[1] = 'foreign' end
  elseif meta[1] == '0' then
    redis.call('XADD', KEYS[1], id, 'e', ARGV[i])
  else
    meta[1] = 'foreign'
  end
  if meta[1] == 'foreign' then
    return {'refused', redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1][2][2]}
  end
end
local ttl = ARGV[2]
if ARGV[4] ~= '0' then
  redis.call('HSET', KEYS[2], 'sealed', ARGV[4])
  ttl = ARGV[3]
end
redis.call('PEXPIRE', KEYS[1], ttl)
redis.call('PEXPIRE', KEYS[2], ttl)
if #ARGV > 5 then redis.call('PUBLISH', ARGV[5], '') end
return {'ok', meta[2] or ''}
"""

# KEYS meta. ARGV terminal entry, control channel, message. Asks the producer, which alone knows what it has
# already shown to the readers beside it. Gives -1 unknown, 0 sealed before, 1 asked first, 2 asked again.
STOP = """
local sealed = redis.call('HGET', KEYS[1], 'sealed')
if not sealed then return -1 end
if sealed ~= '0' then return 0 end
local first = redis.call('HSETNX', KEYS[1], 'stop', ARGV[1])
redis.call('PUBLISH', ARGV[2], ARGV[3])
return 2 - first
"""

# KEYS log, meta. ARGV terminal entry, TTL (ms), channel. Seals for a producer that is gone; should it come
# back, its next append is refused. Gives -1 unknown, 0 sealed before, 1 sealed now.
SEAL = """
local sealed = redis.call('HGET', KEYS[2], 'sealed')
if not sealed then return -1 end
if sealed ~= '0' then return 0 end
redis.call('XADD', KEYS[1], string.format('%.0f-0', redis.call('XLEN', KEYS[1]) + 1), 'e', ARGV[1])
redis.call('HSET', KEYS[2], 'sealed', '1')
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
redis.call('PUBLISH', ARGV[3], '')
return 1
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

SCRIPTS = (APPEND, STOP, SEAL, CLAIM, KEEP)
