-- ARGV: query, labeler, page, token. Returns ok | same | denied | gone
local query, labeler, page, token = unpack(ARGV)
local key = qkey(query)
if not whole(query) then return 'gone' end
if field(query, 't:' .. token) ~= labeler then return 'denied' end
if field(query, 'skip:' .. labeler) == '1' then return 'same' end
if field(query, 'live:' .. labeler) == '1' then return 'denied' end
local now = now_ms()
past_memory_limit()
return_expired(now)
local state = field(query, 'state')
if state == 'done' or state == 'dropped' then return 'gone' end

redis.call('HSET', key, 'skip:' .. labeler, '1')
redis.call('SADD', p .. 'seen:' .. labeler, query)
record('skip', query, labeler, page, token, '0', '', '', '{}')
touch(labeler, now)
tally(labeler, 'skipped')
if holder(query) == labeler then
  end_claim(query)
  to_pending(query)
end

-- With fewer labelers around than `max_skips`, a query that all of them skipped would wait for nobody.
local present = 0
for _, name in ipairs(redis.call('SMEMBERS', p .. 'labelers')) do
  local seen = tonumber(redis.call('HGET', p .. 'labeler:' .. name, 'last_seen') or 0)
  if seen + 300000 > now then present = present + 1 end
end
local limit = math.min(present, tonumber(redis.call('HGET', p .. 'meta', 'max_skips') or 3))
if field(query, 'only') ~= '' then limit = 1 end
if redis.call('HINCRBY', key, 'skips', 1) >= limit and field(query, 'state') == 'pending' then drop(query, now) end
return 'ok'
