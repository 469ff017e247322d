-- commit.lua: applies one event to a contact, or refuses it whole.
-- KEYS[1] contact (hash: v version, s state)   KEYS[2] this commit's id   KEYS[3] business dedupe key (the contact's again if there is none)
-- KEYS[4] outbox  KEYS[5] timers  KEYS[6] feed  KEYS[7] transcript  KEYS[8] the merchant's list of payment requests
-- KEYS[9..8+n] documents of the contact (payment requests, messages)       KEYS[9+n..] further keys that the operations name
-- ARGV[1] name of the event (read by nobody here; it names the commit in slow logs)
-- ARGV[2] expected version, "0" if the contact is not yet there; the new one is this commit's own, see versionAfter
-- ARGV[3] new state of the contact   ARGV[4] lifetime of the contact, ms
-- ARGV[5] lifetime of the commit's id, ms
-- ARGV[6] "1" if there is a dedupe key   ARGV[7] its value   ARGV[8] its lifetime, ms
-- ARGV[9] n, how many documents a conflict shows
-- ARGV[10] index in KEYS of a document that must not exist yet, or "0"
-- ARGV[11] the new version
-- ARGV[12..] operations, each a word and its arguments:
--   set KEY VALUE MS | event KEY NUMBER VALUE MS | feed MERCHANT REQUEST VALUE OLDEST | out VALUE | ack ENTRY
--   timer MEMBER MS | untimer MEMBER | listed MEMBER MS | said MEMBER MS OLDEST LIFETIME
--   talked KEY MEMBER MS OLDEST LIFETIME | unsettled KEY MEMBER MS OLDEST LIFETIME | settled KEY MEMBER
--   (KEY is an index in KEYS)
-- returns {"done", version} (also when this commit's id was here before) | {"duplicate", first value}
--       | {"conflict", version, state, document...} | {"exists", document}
local contact, id, dedupe = KEYS[1], KEYS[2], KEYS[3]
local outbox, timers, feed, transcript, requests = KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local expected, documents, fresh = ARGV[2], tonumber(ARGV[9]), tonumber(ARGV[10])

local before = redis.call('GET', id)
if before then return {'done', before} end
if ARGV[6] == '1' then
  local first = redis.call('GET', dedupe)
  if first then return {'duplicate', first} end
end
local now = redis.call('HMGET', contact, 'v', 's')
local version = now[1] or '0'
if version ~= expected then
  local answer = {'conflict', version, now[2] or ''}
  for i = 1, documents do answer[3 + i] = redis.call('GET', KEYS[8 + i]) or '' end
  return answer
end
if fresh > 0 then
  local there = redis.call('GET', KEYS[fresh])
  if there then return {'exists', there} end
end

version = ARGV[11]
redis.call('SET', id, version, 'PX', ARGV[5])
if ARGV[6] == '1' then redis.call('SET', dedupe, ARGV[7], 'PX', ARGV[8]) end
redis.call('HSET', contact, 'v', version, 's', ARGV[3])
redis.call('PEXPIRE', contact, ARGV[4])
local i = 12
while i <= #ARGV do
  local op = ARGV[i]
  if op == 'set' then
    redis.call('SET', KEYS[tonumber(ARGV[i + 1])], ARGV[i + 2], 'PX', ARGV[i + 3])
    i = i + 4
  elseif op == 'event' then
    local log = KEYS[tonumber(ARGV[i + 1])]
    redis.call('XADD', log, ARGV[i + 2] .. '-1', 'e', ARGV[i + 3])
    redis.call('PEXPIRE', log, ARGV[i + 4])
    i = i + 5
  elseif op == 'feed' then
    redis.call('XADD', feed, 'MINID', '~', ARGV[i + 4], '*', 'm', ARGV[i + 1], 'r', ARGV[i + 2], 'e', ARGV[i + 3])
    i = i + 5
  elseif op == 'out' then
    redis.call('XADD', outbox, '*', 'o', ARGV[i + 1])
    i = i + 2
  elseif op == 'ack' then
    redis.call('XACK', outbox, 'workers', ARGV[i + 1])
    redis.call('XDEL', outbox, ARGV[i + 1])
    i = i + 2
  elseif op == 'timer' then
    redis.call('ZADD', timers, ARGV[i + 2], ARGV[i + 1])
    i = i + 3
  elseif op == 'untimer' then
    redis.call('ZREM', timers, ARGV[i + 1])
    i = i + 2
  elseif op == 'listed' then
    redis.call('ZADD', requests, ARGV[i + 2], ARGV[i + 1])
    i = i + 3
  elseif op == 'said' then
    redis.call('ZREMRANGEBYSCORE', transcript, '-inf', '(' .. ARGV[i + 3])
    redis.call('ZADD', transcript, ARGV[i + 2], ARGV[i + 1])
    redis.call('PEXPIRE', transcript, ARGV[i + 4])
    i = i + 5
  elseif op == 'talked' then
    local talks = KEYS[tonumber(ARGV[i + 1])]
    redis.call('ZREMRANGEBYSCORE', talks, '-inf', '(' .. ARGV[i + 4])
    redis.call('ZADD', talks, 'GT', ARGV[i + 3], ARGV[i + 2])
    redis.call('PEXPIRE', talks, ARGV[i + 5])
    i = i + 6
  elseif op == 'unsettled' then
    local list = KEYS[tonumber(ARGV[i + 1])]
    redis.call('ZREMRANGEBYSCORE', list, '-inf', '(' .. ARGV[i + 4])
    redis.call('ZADD', list, ARGV[i + 3], ARGV[i + 2])
    redis.call('PEXPIRE', list, ARGV[i + 5])
    i = i + 6
  elseif op == 'settled' then
    redis.call('ZREM', KEYS[tonumber(ARGV[i + 1])], ARGV[i + 2])
    i = i + 3
  else
    return redis.error_reply('commit.lua: there is no operation ' .. tostring(op))
  end
end
return {'done', version}
