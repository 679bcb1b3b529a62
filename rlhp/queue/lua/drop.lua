-- ARGV: query, JSON about why. Returns ok | same | leased | gone
local query, now = ARGV[1], now_ms()
past_memory_limit()
return_expired(now)
local state = field(query, 'state')
if state == '' or state == 'done' then return 'gone' end
if state == 'dropped' then return 'same' end
if state == 'leased' then return 'leased' end
drop(query, now, ARGV[2])
return 'ok'
