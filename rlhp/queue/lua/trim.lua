-- Removes acked entries, only behind the smallest un-acked one. Returns how many.
local edge = horizon()
if not edge then return 0 end
return redis.call('XTRIM', ANSWERS, 'MINID', '=', edge)
