-- ARGV: query, pair, candidates (JSON list of segment ids), want, only ('' = anybody), ready (1/0), body, hidden,
-- then pairs of segment id, bytes. Returns ok | same | dup | full | spent | missing
local query, pair, candidates, want, only, ready, body, hidden = unpack(ARGV, 1, 8)
local cap, budget = unpack(redis.call('HMGET', p .. 'meta', 'cap', 'budget'))
if not cap then return 'missing' end
if redis.call('EXISTS', qkey(query)) == 1 then return 'same' end
local asked = redis.call('HGET', p .. 'dedup', pair)
if asked then return asked == query and 'same' or 'dup' end
local open = redis.call('ZCARD', p .. 'pending') + redis.call('ZCARD', p .. 'leased') + redis.call('ZCARD', p .. 'reserved')
if only == '' and open >= tonumber(cap) then return 'full' end
local counts = redis.call('HMGET', p .. 'counts', 'admitted', 'dropped', 'lapsed')
local spent = tonumber(counts[1] or 0) - tonumber(counts[2] or 0) - tonumber(counts[3] or 0)
if only == '' and budget ~= '' and spent >= tonumber(budget) then return 'spent' end

-- The first write grows, so a server at `maxmemory` refuses the query as a whole.
local now, ids = now_ms(), {}
follow_clock(now)
local number = count((only == '' and '' or 'addressed_') .. 'admitted')
for i = 9, #ARGV, 2 do
  redis.call('SET', p .. 'seg:' .. ARGV[i], ARGV[i + 1])
  redis.call('HINCRBY', p .. 'segrefs', ARGV[i], 1)
  ids[#ids + 1] = ARGV[i]
end
redis.call('HSET', qkey(query), 'member', string.format('%012d:', number) .. query, 'pair', pair,
  'candidates', candidates, 'want', want, 'only', only, 'body', body, 'hidden', hidden, 'payloads', table.concat(ids, ' '),
  'made', now, 'got', 0, 'skips', 0, 'token', 0, 'holder', '', 'page', '')
redis.call('HSET', p .. 'dedup', pair, query)
redis.call('ZADD', p .. 'open', now, query)
if only ~= '' then redis.call('SADD', p .. 'addressees', only) end
if ready == '1' then
  to_pending(query)
else
  redis.call('HSET', qkey(query), 'state', 'reserved')
  redis.call('ZADD', p .. 'reserved', now + RESERVE_MS, query)
end
return 'ok'
