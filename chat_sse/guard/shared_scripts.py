"""The counting itself: one script is one step for every process that looks. Keys: see `shared.py`."""

# KEYS one hash a rate. ARGV limit and window (seconds) of each. Refused, nothing is counted. Gives previous,
# current (with this hit, if it fits), elapsed seconds for each, behind the number of the first that is full
# (0 for none). Redis' clock is everybody's.
HIT = """
local now = redis.call('TIME')
now = tonumber(now[1]) + tonumber(now[2]) / 1000000
local counts, full = {}, 0
for i, key in ipairs(KEYS) do
  local limit, window = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local index = math.floor(now / window)
  local there = redis.call('HMGET', key, 'window', 'current', 'previous')
  local age = index - (tonumber(there[1]) or -2)
  local current, previous = tonumber(there[2]) or 0, tonumber(there[3]) or 0
  if age == 1 then previous, current = current, 0 elseif age ~= 0 then previous, current = 0, 0 end
  local elapsed = now - index * window
  if full == 0 and previous * (1 - elapsed / window) + current + 1 > limit then full = i end
  counts[i] = {previous, current, elapsed, index, window}
end
local told = {full}
for i, key in ipairs(KEYS) do
  local previous, current, elapsed, index, window = unpack(counts[i])
  if full == 0 then
    current = current + 1
    redis.call('HSET', key, 'window', index, 'current', current, 'previous', previous)
    redis.call('EXPIRE', key, 2 * window)
  end
  told[#told + 1] = previous
  told[#told + 1] = current
  told[#told + 1] = string.format('%.6f', elapsed)
end
return told
"""

# KEYS sorted set of the client, of all. ARGV limits, stream id, lease (ms). Gives 0 when it is taken, else
# the number of the set that is full.
TAKE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i, key in ipairs(KEYS) do
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
  if redis.call('ZCARD', key) >= tonumber(ARGV[i]) then return i end
end
for _, key in ipairs(KEYS) do
  redis.call('ZADD', key, now + ARGV[4], ARGV[3])
  redis.call('PEXPIRE', key, 2 * ARGV[4])
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
