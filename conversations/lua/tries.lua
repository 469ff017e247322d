-- tries.lua: counts the tries to pay of one address, in windows that begin with a try.
-- KEYS[1] tries (hash: began of the window, ms; n tries counted; declines of them;
--   next, ms, before which none is taken; busy, ms, until when one that had to wait keeps the others waiting)
-- ARGV[1] "begin" counts a try | "look" does not | "decline" says that one was declined | "give" gives one back
-- ARGV[2] now, ms   ARGV[3] window, ms   ARGV[4] most tries   ARGV[5] declines without a wait
-- ARGV[6] first wait, ms; it doubles   ARGV[7] longest wait, ms   ARGV[8] began of the try that is given back or declined
-- returns {"ok", began} | {"too_soon" or "too_many_tries", time when one is taken again, ms}
local tries, verb = KEYS[1], ARGV[1]
local now, window, most, free = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local first, longest = tonumber(ARGV[6]), tonumber(ARGV[7])

local kept = redis.call('HMGET', tries, 'began', 'n', 'declines', 'next', 'busy')
local began, n, declines = tonumber(kept[1]), tonumber(kept[2]) or 0, tonumber(kept[3]) or 0
local next, busy = tonumber(kept[4]) or 0, tonumber(kept[5]) or 0
if not began or now >= began + window then began, n, declines, next, busy = now, 0, 0, 0, 0 end

-- waited returns until when no try is taken after so many declines; 0 if none has to wait.
local function waited()
  if declines <= free then return 0 end
  local w = math.min(first, longest)
  for _ = 1, declines - free - 1 do
    w = w * 2
    if w >= longest then w = longest break end
  end
  return math.min(now + w, began + window)
end

local function write()
  local function ms(at) return string.format('%.0f', at) end
  redis.call('HSET', tries, 'began', ms(began), 'n', n, 'declines', declines, 'next', ms(next), 'busy', ms(busy))
  redis.call('PEXPIRE', tries, math.max(1, began + window - now))
end

if verb == 'begin' or verb == 'look' then
  if n >= most then return {'too_many_tries', began + window} end
  if now < math.max(next, busy) then return {'too_soon', math.max(next, busy)} end
  if verb == 'begin' then
    n, busy = n + 1, waited()
    write()
  end
  return {'ok', began}
end

-- What belongs to a window that is over changes nothing any more.
if tonumber(ARGV[8]) == began and n > 0 then
  busy = 0
  if verb == 'give' then
    n = n - 1
  elseif verb == 'decline' then
    declines = math.min(declines + 1, n)
    next = waited()
  else
    return redis.error_reply('tries.lua: there is no ' .. tostring(verb))
  end
  write()
end
return {'ok', began}
