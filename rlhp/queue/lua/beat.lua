-- The owner is there. Returns 1, or 0 where the run is not here, or nobody's.
if redis.call('HGET', p .. 'meta', 'owner') ~= OWNER then return 0 end
past_memory_limit()
redis.call('HSET', p .. 'meta', 'owner_beat', string.format('%.0f', now_ms()))
return 1
