-- callback_take.lua: takes deliveries that are due, so that nobody else does for a while.
-- KEYS[1] endpoint (hash)  KEYS[2] due (zset)   ARGV[1] now, ms   ARGV[2] until when they are left to the taker, ms   ARGV[3] most
-- returns their ids; none while the endpoint is switched off
if redis.call('HGET', KEYS[1], 'state') ~= 'active' then return {} end
local taken = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])
for _, id in ipairs(taken) do redis.call('ZADD', KEYS[2], ARGV[2], id) end
return taken
