"""The counting itself: one script is one step for every process that looks. Keys: see `redis.py`.

A rate's count is the string `<window> <requests in it> <requests in the one before>`; windows are numbered
from 1970 on, by Redis's clock.
"""

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# `seen` gives a rate's window, its requests, those before, and the milliseconds into the window.
_RATE = """
local function seen(key, seconds)
  local window = math.floor(now / 1000 / seconds)
  local at, here, before = string.match(redis.call('GET', key) or '', '(%d+) (%d+) (%d+)')
  at, here, before = tonumber(at or 0), tonumber(here or 0), tonumber(before or 0)
  if at + 1 == window then here, before = 0, here elseif at < window then here, before = 0, 0 end
  return math.max(window, at), here, before, math.max(0, now - math.max(window, at) * seconds * 1000)
end
local function is_full(rate)
  return rate.before * (1 - rate.into / 1000 / rate.seconds) + rate.here >= rate.amount
end
local function count(key, rate, more)
  local state = string.format('%d %d %d', rate.window, math.max(0, rate.here + more), rate.before)
  redis.call('SET', key, state, 'PX', 2 * rate.seconds * 1000)
end
local function read(key, amount, seconds)
  local rate = {amount = tonumber(amount), seconds = tonumber(seconds)}
  rate.window, rate.here, rate.before, rate.into = seen(key, rate.seconds)
  return rate
end
"""

# KEYS rates. ARGV how many of them, from the first on, count the request, then amount and seconds of each.
# Gives the number of the first that is full (0 for none), then before, here and milliseconds of each.
ARRIVE = f"""{_NOW}{_RATE}
local rates, told = {{}}, {{0}}
for i, key in ipairs(KEYS) do
  local rate = read(key, ARGV[2 * i], ARGV[2 * i + 1])
  rates[i] = rate
  if told[1] == 0 and is_full(rate) then told[1] = i end
  told[3 * i - 1], told[3 * i], told[3 * i + 1] = rate.before, rate.here, rate.into
end
if told[1] == 0 then
  for i = 1, tonumber(ARGV[1]) do count(KEYS[i], rates[i], 1) end
end
return told
"""

# KEYS sorted sets of slots, counters of budgets, rates. ARGV how many slots and budgets, then the seconds of
# each rate. Changes nothing. Gives what each slot and budget holds, then before, here and milliseconds of
# each rate.
LOOK = f"""{_NOW}{_RATE}
local slots, budgets, told = tonumber(ARGV[1]), tonumber(ARGV[2]), {{}}
for i, key in ipairs(KEYS) do
  if i <= slots then
    told[i] = redis.call('ZCOUNT', key, '(' .. now, '+inf')
  elseif i <= slots + budgets then
    told[i] = tonumber(redis.call('GET', key) or '0')
  else
    local rate = read(key, 0, ARGV[2 + i - slots - budgets])
    for _, number in ipairs({{rate.before, rate.here, rate.into}}) do told[#told + 1] = number end
  end
end
return told
"""

# KEYS epoch, then sorted sets of slots, counters of budgets, rates. ARGV how many slots and budgets, stream
# id, lease (ms), tokens, a new epoch if there is none; limit of each slot, limit and end (seconds since 1970)
# of each budget, amount and seconds of each rate. Gives the number of the first key that is full, after the
# epoch's (0 for none); the epoch; then what each budget has spent, with this question's tokens if it is
# admitted; then before, here and milliseconds of a full rate.
ADMIT = f"""{_NOW}{_RATE}
local slots, budgets, id, tokens = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[5])
local epoch = redis.call('GET', KEYS[1])
if not epoch then
  epoch = ARGV[6]
  redis.call('SET', KEYS[1], epoch, 'EX', 100 * 86400)
end
local told, at = {{0, epoch}}, 6
for i = 1, slots do
  redis.call('ZREMRANGEBYSCORE', KEYS[1 + i], '-inf', now)
  at = at + 1
  if told[1] == 0 and redis.call('ZCARD', KEYS[1 + i]) >= tonumber(ARGV[at]) then told[1] = i end
end
local ends = {{}}
for i = 1, budgets do
  local spent = tonumber(redis.call('GET', KEYS[1 + slots + i]) or '0')
  if told[1] == 0 and spent + tokens > tonumber(ARGV[at + 1]) then told[1] = slots + i end
  ends[i], told[2 + i], at = ARGV[at + 2], spent, at + 2
end
local rates = {{}}
for i = 1, #KEYS - 1 - slots - budgets do
  local rate = read(KEYS[1 + slots + budgets + i], ARGV[at + 1], ARGV[at + 2])
  rates[i], at = rate, at + 2
  if told[1] == 0 and is_full(rate) then
    told[1] = slots + budgets + i
    told[3 + budgets], told[4 + budgets], told[5 + budgets] = rate.before, rate.here, rate.into
  end
end
if told[1] > 0 then return told end
for i = 1, slots do
  redis.call('ZADD', KEYS[1 + i], now + ARGV[4], id)
  redis.call('PEXPIRE', KEYS[1 + i], 2 * ARGV[4])
end
for i = 1, budgets do
  told[2 + i] = redis.call('INCRBY', KEYS[1 + slots + i], ARGV[5])
  redis.call('EXPIREAT', KEYS[1 + slots + i], ends[i])
end
for i, rate in ipairs(rates) do count(KEYS[1 + slots + budgets + i], rate, 1) end
return told
"""

# KEYS epoch, a mark that this was done, then slots, budgets and rates as in ADMIT. ARGV how many slots and
# budgets, stream id, epoch of the reservation, tokens reserved, tokens spent, life of the mark (ms), 1 to
# take the question back from the rates; then the end of each budget, and the seconds of each rate.
# What was reserved in counts that are lost is in none: there it counts in full. A sum never becomes negative.
# Epoch `*`: nobody knows whether it was admitted; if so, it holds a slot in the same counts.
SETTLE = f"""{_NOW}{_RATE}
local slots, budgets, spent = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[6])
if ARGV[4] == '*' and not redis.call('ZSCORE', KEYS[2 + slots], ARGV[3]) then return 0 end
if not redis.call('SET', KEYS[2], '', 'NX', 'PX', ARGV[7]) then return 0 end
for i = 1, slots do redis.call('ZREM', KEYS[2 + i], ARGV[3]) end
local is_same = ARGV[4] == '*' or redis.call('GET', KEYS[1]) == ARGV[4]
for i = 1, budgets do
  local key, ends = KEYS[2 + slots + i], tonumber(ARGV[8 + i])
  local before = tonumber(redis.call('GET', key) or '0')
  local change = is_same and math.max(spent - ARGV[5], -before) or spent
  if change ~= 0 and now < ends * 1000 and not (is_same and before == 0) then
    redis.call('INCRBY', key, change)
    redis.call('EXPIREAT', key, ends)
  end
end
if ARGV[8] == '1' and is_same then
  for i = 1, #KEYS - 2 - slots - budgets do
    local key = KEYS[2 + slots + budgets + i]
    count(key, read(key, 0, ARGV[8 + budgets + i]), -1)
  end
end
return 1
"""

# KEYS sorted sets, as often as they hold a stream. ARGV lease (ms), stream ids. Takes no notice of limits.
RENEW = f"""{_NOW}
for i, key in ipairs(KEYS) do
  redis.call('ZADD', key, now + ARGV[1], ARGV[i + 1])
  redis.call('PEXPIRE', key, 2 * ARGV[1])
end
return 0
"""

SCRIPTS = (ARRIVE, ADMIT, LOOK, SETTLE, RENEW)
