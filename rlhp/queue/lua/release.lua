-- ARGV: page. Returns how many queries went back to pending.
local held = held_by(ARGV[1])
past_memory_limit()
for _, query in ipairs(held) do
  end_claim(query)
  to_pending(query)
end
redis.call('DEL', p .. 'held:' .. ARGV[1])
return #held
