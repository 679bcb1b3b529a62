-- ARGV: pairs of query, priority. Returns how many were still pending and have the new one.
local changed = 0
past_memory_limit()
for i = 1, #ARGV, 2 do
  if field(ARGV[i], 'state') == 'pending' then
    redis.call('HSET', qkey(ARGV[i]), 'prio', ARGV[i + 1])
    to_pending(ARGV[i])
    changed = changed + 1
  end
end
return changed
