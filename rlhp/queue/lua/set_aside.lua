-- ARGV: most entries, most bytes, then pairs of stream id, reason. Returns how many entries were set aside.
-- They are acked, so that the log goes on without them, and kept whole; the oldest go where there are too many.
local most, most_bytes, moved = tonumber(ARGV[1]), tonumber(ARGV[2]), 0
local aside = p .. 'aside'
past_memory_limit()

for i = 3, #ARGV, 2 do
  if redis.call('XACK', ANSWERS, GROUP, ARGV[i]) == 1 then
    local found = redis.call('XRANGE', ANSWERS, ARGV[i], ARGV[i])
    local entry = found[1] and cjson.encode(found[1][2]) or '[]' -- one text: an entry may have any number of fields
    redis.call('XADD', aside, '*', 'id', ARGV[i], 'why', ARGV[i + 1], 'entry', entry)
    count('acked')
    count('set_aside')
    count('aside_bytes', #entry)
    moved = moved + 1
  end
end

while redis.call('XLEN', aside) > 1 do
  local kept = tonumber(redis.call('HGET', p .. 'counts', 'aside_bytes') or 0)
  if redis.call('XLEN', aside) <= most and kept <= most_bytes then break end
  local oldest = redis.call('XRANGE', aside, '-', '+', 'COUNT', 1)[1]
  redis.call('XDEL', aside, oldest[1])
  count('aside_bytes', -#oldest[2][6])
end
return moved
