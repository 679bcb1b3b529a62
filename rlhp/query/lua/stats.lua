-- Returns state, ms now, pending, leased, reserved, made ms of the oldest open query, un-acked, counts, labelers
local oldest = redis.call('ZRANGE', p .. 'open', 0, 0, 'WITHSCORES')
local open, leased, reserved = redis.call('ZCARD', p .. 'open'), redis.call('ZCARD', p .. 'leased'), redis.call('ZCARD', p .. 'reserved')
local unacked = redis.pcall('XPENDING', ANSWERS, GROUP)
local labelers = {}
for _, name in ipairs(redis.call('SMEMBERS', p .. 'labelers')) do
  labelers[#labelers + 1] = { name, redis.call('HGETALL', p .. 'labeler:' .. name) }
end
return { redis.call('HGET', p .. 'meta', 'state') or 'missing', now_ms(), open - leased - reserved, leased, reserved,
  oldest[2] or '0', unacked.err and 0 or unacked[1], redis.call('HGETALL', p .. 'counts'), labelers }
