-- callback_set.lua: writes fields of an endpoint, if one of them still has the value that was read.
-- KEYS[1] endpoint (hash)   ARGV[1] field that must be as expected   ARGV[2] expected value, "" if it must not be there
-- ARGV[3..] fields and their new values; a field whose new value is "" is taken away
-- returns 1 if it was written, else 0
local endpoint = KEYS[1]
if (redis.call('HGET', endpoint, ARGV[1]) or '') ~= ARGV[2] then return 0 end
for i = 3, #ARGV, 2 do
  if ARGV[i + 1] == '' then redis.call('HDEL', endpoint, ARGV[i])
  else redis.call('HSET', endpoint, ARGV[i], ARGV[i + 1]) end
end
return 1
