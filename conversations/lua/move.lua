-- move.lua: moves the holder of an order, if it is still the one expected.
-- KEYS[1] order: the holder's id, and that of the last holder that was made   ARGV[1] expected value   ARGV[2] new value
-- ARGV[3] lifetime, ms
-- returns 1 if the new one holds it now (also when it did before), else 0
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[2] then return 1 end
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
