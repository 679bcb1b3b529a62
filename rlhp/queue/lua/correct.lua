-- ARGV: query, labeler, answer, meta. Returns ok | same | no | gone | beyond
-- Somebody with the right to puts another answer in a labeler's place: the old one is taken back, the new one is the
-- next revision, and it counts as the old one did.
local query, labeler, answer, meta = unpack(ARGV)
local key = qkey(query)
if not whole(query) then return 'gone' end
if beyond(query, answer) then return 'beyond' end
if field(query, 'live:' .. labeler) ~= '1' then return 'no' end
local rev = field(query, 'rev:' .. labeler)
if field(query, 'ans:' .. labeler .. ':' .. rev) == answer then return 'same' end
past_memory_limit()
local how, page, next_rev = field(query, 'how:' .. labeler), 'correction', tostring(tonumber(rev) + 1)
local token = issue(query, labeler)
redis.call('HSET', key, 'at:' .. token, now_ms())
record('retract', query, labeler, page, token, rev, '', how, meta)
record('answer', query, labeler, page, token, next_rev, answer, how, meta)
redis.call('HSET', key, 'rev:' .. labeler, next_rev, 'ans:' .. labeler .. ':' .. next_rev, answer,
  'corrected:' .. labeler, next_rev)
redis.call('LREM', p .. 'history:' .. labeler, 0, query .. ' ' .. rev) -- nothing of the labeler's to undo any more
return 'ok'
