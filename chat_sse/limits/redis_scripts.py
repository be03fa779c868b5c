"""The counting itself: one script is one step for every process that looks. Keys: see `redis.py`."""

# KEYS sorted sets of the client, of its site if there is one, of all. ARGV limit of each, stream id, lease
# (ms). Returns 0 when it is taken, else the number of the set that is full.
TAKE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local id, lease = ARGV[#KEYS + 1], ARGV[#KEYS + 2]
for i, key in ipairs(KEYS) do
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
  if redis.call('ZCARD', key) >= tonumber(ARGV[i]) then return i end
end
for _, key in ipairs(KEYS) do
  redis.call('ZADD', key, now + lease, id)
  redis.call('PEXPIRE', key, 2 * lease)
end
return 0
"""

# KEYS sorted sets. ARGV stream id.
FREE = """
for _, key in ipairs(KEYS) do redis.call('ZREM', key, ARGV[1]) end
return 0
"""

# KEYS sorted sets, as often as they hold a stream. ARGV lease (ms), stream ids. Takes no notice of limits.
RENEW = """
local time = redis.call('TIME')
local ends = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1]
for i, key in ipairs(KEYS) do
  redis.call('ZADD', key, ends, ARGV[i + 1])
  redis.call('PEXPIRE', key, 2 * ARGV[1])
end
return 0
"""

# KEYS one counter a budget. ARGV tokens to reserve, then limit and expiry (seconds since 1970) of each. Gives
# the number of the first that has too little left (0 for none), then what each has spent, with this if taken.
RESERVE = """
local short, spent = 0, {}
for i, key in ipairs(KEYS) do
  spent[i] = tonumber(redis.call('GET', key) or '0')
  if short == 0 and spent[i] + ARGV[1] > tonumber(ARGV[2 * i]) then short = i end
end
local told = {short}
for i, key in ipairs(KEYS) do
  if short == 0 then
    spent[i] = redis.call('INCRBY', key, ARGV[1])
    redis.call('EXPIREAT', key, ARGV[2 * i + 1])
  end
  told[i + 1] = spent[i]
end
return told
"""

# KEYS one counter a budget. ARGV change. A counter whose window is over is gone, and stays so.
SETTLE = """
for _, key in ipairs(KEYS) do
  if redis.call('EXISTS', key) == 1 then redis.call('INCRBY', key, ARGV[1]) end
end
return 0
"""
