-- ARGV: pairs of field, value. Returns 1, or 0 where the run was never opened here.
if redis.call('EXISTS', p .. 'meta') == 0 then return 0 end
past_memory_limit()
redis.call('HSET', p .. 'meta', unpack(ARGV))
return 1
