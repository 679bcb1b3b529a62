-- ARGV: schema, config sha256, cap, budget ('' = none), max skips, resume (1/0), id of the run ('' = none),
-- token of the owner to be, what is known of it (JSON), token of the owner that it replaces ('' = none), pairs of info.
-- Returns new | own | foreign | schema:<found> | config:<found> | used:<last owner> | owned:<last heard of, ms> <ms since> <owner>
local schema, config, cap, budget, max_skips, resume, id, token, who, replaces = unpack(ARGV, 1, 10)
local meta, now = p .. 'meta', now_ms()
local kind = redis.call('TYPE', meta).ok
if kind ~= 'none' and kind ~= 'hash' then return 'foreign' end
local found = redis.call('HMGET', meta, 'kind', 'schema', 'config_sha256', 'owner', 'owner_who', 'owner_beat', 'id')
if kind == 'hash' then
  if found[1] ~= 'rlhp-queue' then return 'foreign' end
  if found[2] ~= schema then return 'schema:' .. (found[2] or '') end
  if id ~= '' and found[7] and found[7] ~= id then return 'used:' .. (found[5] or '{}') end
  if found[4] and found[4] ~= token and found[4] ~= replaces then
    local beat = tonumber(found[6] or 0)
    return string.format('owned:%.0f %.0f ', beat, now - beat) .. (found[5] or '{}')
  end
  if found[3] ~= config and resume ~= '1' then return 'config:' .. (found[3] or '') end
end
redis.call('HSET', meta, 'kind', 'rlhp-queue', 'schema', schema, 'config_sha256', config, 'cap', cap,
  'budget', budget, 'max_skips', max_skips, 'state', 'open',
  'owner', token, 'owner_who', who, 'owner_beat', string.format('%.0f', now))
redis.call('HSETNX', meta, 'created', now)
if id ~= '' then redis.call('HSET', meta, 'id', id) end
for i = 11, #ARGV, 2 do redis.call('HSET', meta, 'info:' .. ARGV[i], ARGV[i + 1]) end
-- From the very first entry: answers given before the reader starts are read too.
redis.pcall('XGROUP', 'CREATE', ANSWERS, GROUP, '0', 'MKSTREAM')
return kind == 'none' and 'new' or 'own'
