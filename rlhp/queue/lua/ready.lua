-- ARGV: query. Returns ok | same | noclip | gone
local query = ARGV[1]
local state = field(query, 'state')
if state == '' or state == 'dropped' then return 'gone' end
if state ~= 'reserved' then return 'same' end
local clips = clip_keys(query)
if redis.call('EXISTS', unpack(clips)) < #clips then return 'noclip' end
for _, key in ipairs(clips) do redis.call('PERSIST', key) end
redis.call('ZREM', p .. 'reserved', query)
to_pending(query)
return 'ok'
