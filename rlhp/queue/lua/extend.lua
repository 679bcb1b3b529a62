-- ARGV: page. Returns how many queries the page still holds, each with a new deadline.
local page, now = ARGV[1], now_ms()
past_memory_limit()
return_expired(now)
local held = held_by(page)
for _, query in ipairs(held) do
  renew(query, now)
  touch(holder(query), now)
end
return #held
