-- ARGV: most bytes of clips. Returns how many there are, after those of the queries finished longest ago went.
-- Without what was shown nothing can be shown again, so the undo of such a query ends as if it had been tidied.
local cap, used, sizes = tonumber(ARGV[1]), 0, {}
past_memory_limit()
local finished = redis.call('ZRANGE', p .. 'finished', 0, -1)
for _, group in ipairs({ redis.call('ZRANGE', p .. 'open', 0, -1), finished }) do
  for _, query in ipairs(group) do
    sizes[query] = 0
    for _, key in ipairs(clip_keys(query)) do sizes[query] = sizes[query] + redis.call('STRLEN', key) end
    used = used + sizes[query]
  end
end
for _, query in ipairs(finished) do
  if used <= cap then break end
  if sizes[query] > 0 then
    redis.call('DEL', unpack(clip_keys(query)))
    redis.call('HSET', qkey(query), 'tidied', '1')
    used = used - sizes[query]
  end
end
return used
