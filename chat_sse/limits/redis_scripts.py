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
local function tell(told, rate)
  for _, number in ipairs({rate.before, rate.here, rate.into}) do told[#told + 1] = number end
end
"""

# KEYS rates. ARGV amount and seconds of each. Counts a request in all of them, or in none. Gives the number
# of the first that is full (0 for none), then before, here and milliseconds of each.
COUNT = f"""{_NOW}{_RATE}
local rates, told = {{}}, {{0}}
for i, key in ipairs(KEYS) do
  local rate = read(key, ARGV[2 * i - 1], ARGV[2 * i])
  rates[i] = rate
  if told[1] == 0 and is_full(rate) then told[1] = i end
  tell(told, rate)
end
if told[1] == 0 then
  for i, key in ipairs(KEYS) do count(key, rates[i], 1) end
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
    tell(told, read(key, 0, ARGV[2 + i - slots - budgets]))
  end
end
return told
"""

# KEYS epoch, then sorted sets of slots, counters of budgets, rates of requests, rates of questions. ARGV how
# many there are of the first three, stream id, lease (ms), tokens, a new epoch if there is none; limit of
# each slot, limit and end (seconds since 1970) of each budget, amount and seconds of each rate. A request
# counts unless a rate is full; a question unless anything is. Gives the number of the first key that
# is full, after the epoch's (0 for none); the epoch; what each budget has spent, with this question's tokens
# if it is admitted; then before, here and milliseconds of each rate, as they were.
ADMIT = f"""{_NOW}{_RATE}
local slots, budgets, requests = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local id, lease, tokens = ARGV[4], ARGV[5], tonumber(ARGV[6])
local epoch = redis.call('GET', KEYS[1])
if not epoch then
  epoch = ARGV[7]
  redis.call('SET', KEYS[1], epoch, 'EX', 100 * 86400)
end
local told, rates, before_rates = {{0, epoch}}, {{}}, 1 + slots + budgets
for i = 1, budgets do told[2 + i] = tonumber(redis.call('GET', KEYS[1 + slots + i]) or '0') end
for i = 1, #KEYS - before_rates do
  local at = 6 + slots + 2 * budgets + 2 * i
  rates[i] = read(KEYS[before_rates + i], ARGV[at], ARGV[at + 1])
  tell(told, rates[i])
end
for i, rate in ipairs(rates) do
  if is_full(rate) then
    told[1] = slots + budgets + i
    return told
  end
end
for i = 1, requests do count(KEYS[before_rates + i], rates[i], 1) end
for i = 1, slots do
  if redis.call('ZCARD', KEYS[1 + i]) >= tonumber(ARGV[7 + i]) then
    redis.call('ZREMRANGEBYSCORE', KEYS[1 + i], '-inf', now)
    if redis.call('ZCARD', KEYS[1 + i]) >= tonumber(ARGV[7 + i]) then
      told[1] = i
      return told
    end
  end
end
for i = 1, budgets do
  if told[2 + i] + tokens > tonumber(ARGV[6 + slots + 2 * i]) then
    told[1] = slots + i
    return told
  end
end
for i = 1, slots do
  redis.call('ZADD', KEYS[1 + i], now + lease, id)
  redis.call('PEXPIRE', KEYS[1 + i], 2 * lease)
end
for i = 1, budgets do
  local is_new = told[2 + i] == 0
  told[2 + i] = redis.call('INCRBY', KEYS[1 + slots + i], ARGV[6])
  if is_new then redis.call('EXPIREAT', KEYS[1 + slots + i], ARGV[7 + slots + 2 * i]) end
end
for i = requests + 1, #rates do count(KEYS[before_rates + i], rates[i], 1) end
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
    if before == 0 then redis.call('EXPIREAT', key, ends) end
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
