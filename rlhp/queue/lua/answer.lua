-- ARGV: query, labeler, page, token, answer, rev, meta. Returns ok | late | extra | same | conflict | denied | gone | beyond
local query, labeler, page, token, answer, rev, meta = unpack(ARGV)
local key = qkey(query)
if not whole(query) then return 'gone' end
if field(query, 't:' .. token) ~= labeler then return 'denied' end
if beyond(query, answer) then return 'beyond' end
local given = field(query, 'ans:' .. labeler .. ':' .. rev)
if given ~= '' then return given == answer and 'same' or 'conflict' end
local last = tonumber(redis.call('HGET', key, 'rev:' .. labeler) or 0)
if field(query, 'live:' .. labeler) == '1' or tonumber(rev) ~= last + 1 then return 'conflict' end

local now = now_ms()
past_memory_limit()
return_expired(now)
local state = field(query, 'state')
local how = 'late'
if state == 'done' or state == 'dropped' then
  how = 'extra'
elseif state == 'leased' and field(query, 'holder') == token then
  how = 'ok'
end
redis.call('HSET', key, 'rev:' .. labeler, rev, 'ans:' .. labeler .. ':' .. rev, answer, 'live:' .. labeler, '1',
  'how:' .. labeler, how)
redis.call('SADD', p .. 'seen:' .. labeler, query)
record('answer', query, labeler, page, token, rev, answer, how, meta)

if how ~= 'extra' then
  local got = redis.call('HINCRBY', key, 'got', 1)
  if got == 1 then count_query(query, 'answered') end
  if got >= (tonumber(field(query, 'want')) or 1) then
    finish(query, 'done', now) -- ends the claim of a present holder, whose own answer becomes `extra`
  elseif holder(query) == labeler then
    end_claim(query)
    to_pending(query)
  end
end

local taken = math.max(0, now - (tonumber(field(query, 'at:' .. token)) or now))
touch(labeler, now)
tally(labeler, how)
tally(labeler, 'answer_ms', taken)
redis.call('LPUSH', p .. 'times:' .. labeler, taken)
redis.call('LTRIM', p .. 'times:' .. labeler, 0, 14)
redis.call('LPUSH', p .. 'history:' .. labeler, query .. ' ' .. rev)
redis.call('LTRIM', p .. 'history:' .. labeler, 0, 9)
return how
