-- ARGV: state. Returns 1, or 0 where the run was never opened here. Closed, the run is nobody's.
if redis.call('EXISTS', p .. 'meta') == 0 then return 0 end
past_memory_limit()
redis.call('HSET', p .. 'meta', 'state', ARGV[1])
if ARGV[1] == 'closed' and OWNER ~= '' then redis.call('HDEL', p .. 'meta', 'owner', 'owner_beat') end
return 1
