-- revive.lua: puts a dead letter back into the outbox of its partition, once.
-- KEYS[1] dead letters (stream)  KEYS[2] outbox (stream)   ARGV[1] id of the letter
-- returns 1 if it was put back, 0 if there is no such letter (any more)
local dead, outbox, id = KEYS[1], KEYS[2], ARGV[1]

local found = redis.call('XRANGE', dead, id, id)
if #found == 0 then return 0 end
local fields, entry = found[1][2], nil
for i = 1, #fields, 2 do
  if fields[i] == 'o' then entry = fields[i + 1] end
end
redis.call('XDEL', dead, id)
if entry then redis.call('XADD', outbox, '*', 'o', entry) end
return 1
