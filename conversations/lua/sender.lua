-- sender.lua: keeps what was said of a sender under one name, unless something later is there already.
-- KEYS[1] sender (hash)   ARGV[1] field   ARGV[2] rank, ms: of two values of a field the one of the higher rank stays
-- ARGV[3] value   ARGV[4] lifetime, ms   ARGV[5] most fields; beyond it the one of the lowest rank goes
-- returns 1 if the value was written, 0 if what is there is later
local sender, field, rank = KEYS[1], ARGV[1], tonumber(ARGV[2])
local function rankOf(kept) return tonumber(string.match(kept, '^-?%d+')) or 0 end

local kept = redis.call('HGET', sender, field)
if kept and rankOf(kept) > rank then return 0 end

redis.call('HSET', sender, field, ARGV[2] .. ' ' .. ARGV[3])
redis.call('PEXPIRE', sender, ARGV[4])
if redis.call('HLEN', sender) > tonumber(ARGV[5]) then
  local all = redis.call('HGETALL', sender)
  local lowest, least
  for i = 1, #all, 2 do
    local r = rankOf(all[i + 1])
    if not least or r < least then lowest, least = all[i], r end
  end
  redis.call('HDEL', sender, lowest)
end
return 1
