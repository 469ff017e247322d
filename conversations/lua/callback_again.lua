-- callback_again.lua: queues deliveries once more, from the beginning of the timetable, unless this was done before.
-- KEYS[1] due (zset)  KEYS[2] open (zset)  KEYS[3..] deliveries (hashes)
-- ARGV[1] now, ms   ARGV[2] when it was asked for, ms   ARGV[3] "1" if the caller may have asked before, else "0"
-- ARGV[4..] ids of the deliveries
-- returns how many are queued by this wish, counting those that it queued before
local due, open, now, asked, again = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3] == '1'
local queued = 0
for n = 1, #KEYS - 2 do
  local delivery, id = KEYS[2 + n], ARGV[3 + n]
  local kept = redis.call('HMGET', delivery, 'at', 'asked')
  if kept[1] then
    queued = queued + 1
    -- A wish that is new counts whatever the clock says. A repeat does not undo what was asked for after it.
    if not kept[2] or tonumber(kept[2]) < tonumber(asked) or not again and kept[2] ~= asked then
      redis.call('HSET', delivery, 'asked', asked, 'state', 'pending', 'step', 0)
      redis.call('ZADD', due, now, id)
      redis.call('ZADD', open, kept[1], id)
      local lifetime = redis.call('PTTL', delivery)
      for i = 1, 2 do
        if redis.call('PTTL', KEYS[i]) < lifetime then redis.call('PEXPIRE', KEYS[i], lifetime) end
      end
    end
  end
end
return queued
