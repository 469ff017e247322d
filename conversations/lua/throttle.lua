-- throttle.lua: one permission of a shared rate limit, by the generic cell rate algorithm.
-- KEYS[1] throttle: the theoretical arrival time, ms   ARGV[1] ms between two permissions   ARGV[2] burst, permissions at once
-- returns 0 if it is given, else after how many ms to ask again; the clock is Redis's own
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local every, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local arrival = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
local wait = arrival - now - every * (burst - 1)
if wait > 0 then return math.ceil(wait) end
redis.call('SET', KEYS[1], string.format('%.3f', arrival + every), 'PX', math.ceil(arrival - now + every) + 1000)
return 0
