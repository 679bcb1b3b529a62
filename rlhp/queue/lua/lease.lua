-- ARGV: labeler, page, n, lease ms. Returns a list of query, token, body, deadline ms, revision to answer with
local labeler, page, n, lease_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local state = redis.call('HGET', p .. 'meta', 'state')
if not state then return {} end
local now = now_ms()
past_memory_limit()
return_expired(now)
tidy(now, 20)
touch(labeler, now)
if state == 'closed' then return {} end
if (redis.call('HGET', p .. 'paused', labeler) or '') ~= '' then return {} end

-- Three times the labeler's median answer time: the quick lose little when they vanish, the slow are not cut off.
local function lease_time()
  local times = redis.call('LRANGE', p .. 'times:' .. labeler, 0, -1)
  if #times < 5 then return lease_ms end
  for i = 1, #times do times[i] = tonumber(times[i]) end
  table.sort(times)
  local median = times[math.floor((#times + 1) / 2)]
  return math.floor(math.min(math.max(3 * median, lease_ms / 2), lease_ms * 10))
end

local leases = {}
local function add(query, token, deadline)
  local rev = tonumber(redis.call('HGET', qkey(query), 'rev:' .. labeler) or 0) + 1
  leases[#leases + 1] = { query, tostring(token), field(query, 'body'), string.format('%.0f', deadline), tostring(rev) }
end

for _, query in ipairs(held_by(page)) do
  if holder(query) == labeler then add(query, field(query, 'holder'), renew(query, now)) end
end

local room = math.min(n - #leases, LEASES_PER_LABELER - redis.call('SCARD', p .. 'holds:' .. labeler))
local ttl = lease_time()
for _, key in ipairs({ p .. 'pending@' .. labeler, p .. 'pending' }) do
  local from = 0
  while room > 0 do
    local members = redis.call('ZRANGE', key, from, from + 49)
    if #members == 0 then break end
    for _, member in ipairs(members) do
      local query = string.sub(member, 14)
      if not whole(query) then
        redis.call('ZREM', key, member)
        forget(query)
      elseif room > 0 and redis.call('SISMEMBER', p .. 'seen:' .. labeler, query) == 0
        and field(query, 'live:' .. labeler) ~= '1' then -- as `seen:` says too, unless it was lost
        redis.call('ZREM', key, member)
        add(query, claim(query, labeler, page, ttl, HOLD * lease_ms, now))
        room = room - 1
      else
        from = from + 1
      end
    end
  end
end
return leases
