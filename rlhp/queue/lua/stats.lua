-- Returns state, ms now, pending, leased, reserved, made ms of the oldest open query, un-acked, unread, counts, labelers
local COUNTED = 1000
local oldest = redis.call('ZRANGE', p .. 'open', 0, 0, 'WITHSCORES')
local open, leased, reserved = redis.call('ZCARD', p .. 'open'), redis.call('ZCARD', p .. 'leased'), redis.call('ZCARD', p .. 'reserved')
local counts = redis.call('HGETALL', p .. 'counts')

-- Counted in the log itself, which may hold entries that nobody here wrote; beyond a thousand the counters will do.
local group, unacked, unread = reader_group(), 0, 0
if group then
  unacked = redis.call('XPENDING', ANSWERS, GROUP)[1]
  unread = #redis.call('XRANGE', ANSWERS, '(' .. group['last-delivered-id'], '+', 'COUNT', COUNTED)
  if unread == COUNTED then
    local known = redis.call('HMGET', p .. 'counts', 'events', 'acked')
    unread = math.max(unread, tonumber(known[1] or 0) - tonumber(known[2] or 0) - unacked)
  end
end

local labelers = {}
for _, name in ipairs(redis.call('SMEMBERS', p .. 'labelers')) do
  local facts = redis.call('HGETALL', p .. 'labeler:' .. name)
  if #facts > 0 then labelers[#labelers + 1] = { name, facts } end
end
return { redis.call('HGET', p .. 'meta', 'state') or 'missing', now_ms(), math.max(0, open - leased - reserved), leased,
  reserved, oldest[2] or '0', unacked, unread, counts, labelers }
