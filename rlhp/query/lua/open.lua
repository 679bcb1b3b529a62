-- ARGV: schema, config sha256, cap, budget ('' = none), max skips, resume (1/0), then pairs of info.
-- Returns new | own | foreign | schema:<found> | config:<found>
local schema, config, cap, budget, max_skips, resume = unpack(ARGV)
local meta = p .. 'meta'
local kind = redis.call('TYPE', meta).ok
if kind ~= 'none' and kind ~= 'hash' then return 'foreign' end
local found = redis.call('HMGET', meta, 'kind', 'schema', 'config_sha256')
if kind == 'hash' then
  if found[1] ~= 'rlhp-queue' then return 'foreign' end
  if found[2] ~= schema then return 'schema:' .. (found[2] or '') end
  if found[3] ~= config and resume ~= '1' then return 'config:' .. (found[3] or '') end
end
redis.call('HSET', meta, 'kind', 'rlhp-queue', 'schema', schema, 'config_sha256', config, 'cap', cap,
  'budget', budget, 'max_skips', max_skips, 'state', 'open')
redis.call('HSETNX', meta, 'created', now_ms())
for i = 7, #ARGV, 2 do redis.call('HSET', meta, 'info:' .. ARGV[i], ARGV[i + 1]) end
-- From the very first entry: answers given before the reader starts are read too.
redis.pcall('XGROUP', 'CREATE', ANSWERS, GROUP, '0', 'MKSTREAM')
return kind == 'none' and 'new' or 'own'
