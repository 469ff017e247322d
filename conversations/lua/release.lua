-- release.lua: forgets one field of what is known of a sender, if it is still as it was read.
-- KEYS[1] sender (hash)   ARGV[1] field   ARGV[2] what was read there
-- returns 1 if it was forgotten, else 0
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[1])
