-- ARGV: stream ids. Returns how many were un-acked until now.
local acked = redis.call('XACK', ANSWERS, GROUP, unpack(ARGV))
past_memory_limit()
count('acked', acked)
return acked
