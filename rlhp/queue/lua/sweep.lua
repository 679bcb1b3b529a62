-- Returns how many leases, reservations and addressed queries ended.
local now = now_ms()
past_memory_limit()
local ended = return_expired(now)

-- Where a key was lost: every open query is in the list of its state, and whatever is in one of these is open.
local function mend()
  for _, query in ipairs(redis.call('ZRANGE', p .. 'open', 0, -1)) do
    local state = field(query, 'state')
    if not whole(query) then
      forget(query)
    elseif state == 'reserved' and not redis.call('ZSCORE', p .. 'reserved', query) then
      redis.call('ZADD', p .. 'reserved', now + RESERVE_MS, query)
    elseif state == 'leased' and not redis.call('ZSCORE', p .. 'leased', query) then
      end_claim(query)
      to_pending(query)
    elseif state == 'pending' and not redis.call('ZSCORE', pending_key(query), field(query, 'member')) then
      to_pending(query)
    end
  end
  for _, list in ipairs({ 'pending', 'leased', 'reserved' }) do
    for _, member in ipairs(redis.call('ZRANGE', p .. list, 0, -1)) do
      local query = list == 'pending' and string.sub(member, 14) or member
      if whole(query) then
        redis.call('ZADD', p .. 'open', 'NX', tonumber(field(query, 'made')) or now, query)
      else
        redis.call('ZREM', p .. list, member)
        forget(query)
      end
    end
  end
end
mend()

-- Nobody ever saw a reservation, so it leaves no event and its pair may be asked again.
for _, query in ipairs(redis.call('ZRANGEBYSCORE', p .. 'reserved', '-inf', now)) do
  unref_payloads(query)
  redis.call('HDEL', p .. 'dedup', field(query, 'pair'))
  redis.call('ZREM', p .. 'reserved', query)
  redis.call('ZREM', p .. 'open', query)
  count_query(query, 'lapsed')
  redis.call('DEL', qkey(query), unpack(clip_keys(query)))
  ended = ended + 1
end

for _, labeler in ipairs(redis.call('SMEMBERS', p .. 'addressees')) do
  local seen = tonumber(redis.call('HGET', p .. 'labeler:' .. labeler, 'last_seen') or 0)
  local members = redis.call('ZRANGE', p .. 'pending@' .. labeler, 0, -1)
  for _, member in ipairs(members) do
    local query = string.sub(member, 14)
    if not whole(query) then
      redis.call('ZREM', p .. 'pending@' .. labeler, member)
      forget(query)
    elseif now - math.max(seen, tonumber(field(query, 'made')) or 0) > ABSENT_MS then
      drop(query, now)
      ended = ended + 1
    end
  end
end
tidy(now, 1000)
return ended
