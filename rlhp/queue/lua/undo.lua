-- ARGV: query, labeler, page, rev, lease ms. Returns {ok | same | no, token}
local query, labeler, page, rev, lease_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local key = qkey(query)
if field(query, 'rev:' .. labeler) ~= rev then return { 'no', '0' } end -- answered anew since, or never
if redis.call('HGET', key, 'undone:' .. labeler) == rev then return { 'same', field(query, 'undo:' .. labeler) } end
if field(query, 'live:' .. labeler) ~= '1' then return { 'no', '0' } end
if field(query, 'corrected:' .. labeler) == rev then return { 'no', '0' } end -- an admin's word, which stands
if field(query, 'tidied') == '1' then return { 'no', '0' } end -- what was shown is gone, so it cannot be shown again

local now = now_ms()
past_memory_limit()
return_expired(now)
local counted = field(query, 'how:' .. labeler) ~= 'extra'
local state = field(query, 'state')
local token
if counted then
  if redis.call('HINCRBY', key, 'got', -1) == 0 then count_query(query, 'answered', -1) end
  if state == 'done' then
    redis.call('ZREM', p .. 'finished', query)
    redis.call('ZADD', p .. 'open', tonumber(field(query, 'made')) or now, query)
    count_query(query, 'done', -1)
  else
    leave(query) -- another labeler's claim ends too; that answer still counts, as `late`
  end
  token = claim(query, labeler, page, lease_ms, HOLD * lease_ms, now)
else
  token = issue(query, labeler) -- the query stays finished: a new answer is `extra` again
  redis.call('HSET', key, 'at:' .. token, now)
end
redis.call('HSET', key, 'live:' .. labeler, '0', 'undone:' .. labeler, rev, 'undo:' .. labeler, token)
redis.call('SREM', p .. 'seen:' .. labeler, query)
redis.call('LREM', p .. 'history:' .. labeler, 0, query .. ' ' .. rev)
record('retract', query, labeler, page, token, rev, '', field(query, 'how:' .. labeler), '{}')
touch(labeler, now)
tally(labeler, 'undone')
return { 'ok', tostring(token) }
