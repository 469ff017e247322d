-- callback_queue.lua: queues events for an endpoint, each once, and forgets what is older than deliveries are kept.
-- KEYS[1] endpoint (hash)  KEYS[2] due (zset)  KEYS[3] open (zset)  KEYS[4] all (zset)
-- KEYS[5..] deliveries (hashes), one for each event
-- ARGV[1] when they are tried first, ms   ARGV[2] lifetime of deliveries, ms   ARGV[3] time before which they are forgotten, ms
-- ARGV[4..] for each event: id, fingerprint, type, time in ms, payment request, number in its log, content
-- returns a list: for each event 1 (queued), 0 (it was before), -1 (another event has this id); empty if there is no such endpoint
local endpoint, due, open, all = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local first, lifetime, oldest = ARGV[1], ARGV[2], ARGV[3]

if redis.call('HEXISTS', endpoint, 'def') == 0 then return {} end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', open, '-inf', '(' .. oldest, 'LIMIT', 0, 100)) do
  redis.call('ZREM', due, id)
  redis.call('ZREM', open, id)
end
redis.call('ZREMRANGEBYSCORE', all, '-inf', '(' .. oldest)

local answer = {}
for n = 1, #KEYS - 4 do
  local delivery, i = KEYS[4 + n], 4 + 7 * (n - 1)
  local id, fingerprint, at = ARGV[i], ARGV[i + 1], ARGV[i + 3]
  local there = redis.call('HGET', delivery, 'print')
  if not there then
    redis.call('HSET', delivery, 'print', fingerprint, 'type', ARGV[i + 2], 'at', at, 'request', ARGV[i + 4], 'seq', ARGV[i + 5],
      'body', ARGV[i + 6], 'state', 'pending', 'tries', 0, 'step', 0)
    redis.call('PEXPIRE', delivery, lifetime)
    redis.call('ZADD', due, first, id)
    redis.call('ZADD', open, at, id)
    redis.call('ZADD', all, at, id)
    answer[n] = 1
  elseif there == fingerprint then
    answer[n] = 0
  else
    answer[n] = -1
  end
end
for i = 2, 4 do redis.call('PEXPIRE', KEYS[i], lifetime) end
return answer
