-- ARGV: query. Returns ok | same | noclip | gone
local query = ARGV[1]
local state = field(query, 'state')
if state == '' or state == 'dropped' then return 'gone' end
if state ~= 'reserved' then return 'same' end
local first, second = clip_keys(query)
if redis.call('EXISTS', first, second) < 2 then return 'noclip' end
redis.call('PERSIST', first)
redis.call('PERSIST', second)
redis.call('ZREM', p .. 'reserved', query)
to_pending(query)
return 'ok'
