-- Returns how many leases, reservations and addressed queries ended.
local now = now_ms()
past_memory_limit()
local ended = return_expired(now)

-- Nobody ever saw a reservation, so it leaves no event and its pair may be asked again.
for _, query in ipairs(redis.call('ZRANGEBYSCORE', p .. 'reserved', '-inf', now)) do
  unref_payloads(query)
  redis.call('HDEL', p .. 'dedup', field(query, 'pair'))
  redis.call('ZREM', p .. 'reserved', query)
  redis.call('ZREM', p .. 'open', query)
  count_query(query, 'lapsed')
  redis.call('DEL', qkey(query), clip_keys(query))
  ended = ended + 1
end

for _, labeler in ipairs(redis.call('SMEMBERS', p .. 'addressees')) do
  local seen = tonumber(redis.call('HGET', p .. 'labeler:' .. labeler, 'last_seen') or 0)
  local members = redis.call('ZRANGE', p .. 'pending@' .. labeler, 0, -1)
  for _, member in ipairs(members) do
    local query = string.sub(member, 14)
    if now - math.max(seen, tonumber(field(query, 'made'))) > ABSENT_MS then
      drop(query, now)
      ended = ended + 1
    end
  end
end
tidy(now, 1000)
return ended
