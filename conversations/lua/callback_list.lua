-- callback_list.lua: puts an endpoint on its merchant's list of endpoints, unless the list is full.
-- KEYS[1] list (hash)   ARGV[1] id of the endpoint   ARGV[2] where it is kept: "config" or "api"
-- ARGV[3] most that may be on the list, or "0" for any number
-- returns 1 if it is on the list now (also when it was before), else 0
local list, id, source, most = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
if most > 0 and redis.call('HEXISTS', list, id) == 0 and redis.call('HLEN', list) >= most then return 0 end
redis.call('HSET', list, id, source)
return 1
