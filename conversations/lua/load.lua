-- load.lua: reads a contact and some of its documents at one version.
-- KEYS[1] contact (hash: v version, s state)   KEYS[2..] documents
-- returns {version, state, document...}; "0" and "" stand for what is not there
local contact = redis.call('HMGET', KEYS[1], 'v', 's')
local answer = {contact[1] or '0', contact[2] or ''}
for i = 2, #KEYS do answer[1 + i] = redis.call('GET', KEYS[i]) or '' end
return answer
