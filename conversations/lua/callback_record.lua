-- callback_record.lua: keeps what became of a try to deliver. A failure counts only while the delivery is still the taker's, a
-- success always.
-- KEYS[1] endpoint (hash)  KEYS[2] due (zset)  KEYS[3] open (zset)  KEYS[4] delivery (hash)
-- ARGV[1] id   ARGV[2] now, ms   ARGV[3] time until which it was taken, ms   ARGV[4] new state   ARGV[5] HTTP status, 0 if none came
-- ARGV[6] word for what went wrong, "" if nothing   ARGV[7] when it is tried again, ms, or ""   ARGV[8] step of the timetable then
-- ARGV[9] why the endpoint is switched off at once, or ""   ARGV[10] it is switched off, too, if all has failed since this time, ms;
-- 0 if the failure says nothing of the endpoint   ARGV[11] the endpoint's definition when it was tried
-- returns "" | "missing" if there is no such endpoint or delivery (any more) | why the endpoint was switched off by this
local endpoint, due, open, delivery = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, now, lease, state = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

if redis.call('EXISTS', endpoint) == 0 or redis.call('EXISTS', delivery) == 0 then
  redis.call('ZREM', due, id)
  redis.call('ZREM', open, id)
  return 'missing'
end
local score = redis.call('ZSCORE', due, id)
local mine = score and tonumber(score) == tonumber(lease)
if state ~= 'delivered' and not mine then return '' end

redis.call('HSET', delivery, 'state', state, 'status', ARGV[5], 'error', ARGV[6], 'last', now, 'step', ARGV[8])
redis.call('HINCRBY', delivery, 'tries', 1)
if mine then
  if ARGV[7] ~= '' then
    redis.call('ZADD', due, ARGV[7], id)
  else
    redis.call('ZREM', due, id)
    redis.call('ZREM', open, id)
  end
end
if state == 'delivered' then
  redis.call('HDEL', endpoint, 'failing')
  redis.call('HSET', endpoint, 'ok', now)
  return ''
end
if ARGV[9] == '' and ARGV[10] == '0' or redis.call('HGET', endpoint, 'def') ~= ARGV[11] then return '' end
local failing = redis.call('HGET', endpoint, 'failing')
if not failing then
  redis.call('HSET', endpoint, 'failing', now)
  failing = now
end
local why = ARGV[9]
if why == '' and tonumber(failing) <= tonumber(ARGV[10]) then why = 'failing' end
if why == '' or redis.call('HGET', endpoint, 'state') ~= 'active' then return '' end
redis.call('HSET', endpoint, 'state', 'disabled', 'reason', why, 'since', now)
redis.call('HDEL', endpoint, 'told')
return why
