-- ARGV: queries as JSON, each with what is known on disk of what became of it. Returns how many were behind that here.
-- What was answered there is answered here: nobody is asked again, and a labeler's next revision is a new one. A query
-- that was forgotten since it was finished stays so, unless `again` asks for it: as a finished one, for a correction.
local now, behind = now_ms(), 0
past_memory_limit()
follow_clock(now)

local function create(about)
  redis.call('HSET', qkey(about.id), 'member', string.format('%012d:', 0) .. about.id, 'pair', about.pair,
    'candidates', about.candidates, 'want', 1, 'only', about.only, 'body', about.body,
    'hidden', about.hidden, 'payloads', '', 'made', about.made, 'got', 0, 'skips', 0, 'token', 0, 'holder', '',
    'page', '', 'state', 'done', 'tidied', '1')
  redis.call('EXPIRE', qkey(about.id), KEEP_QUERY_S)
end

-- How many counted answers more there are of this labeler, and whether anything was news.
local function merge(query, one)
  local key, name = qkey(query), one.labeler
  local was = redis.call('HMGET', key, 'rev:' .. name, 'live:' .. name, 'how:' .. name, 'skip:' .. name)
  local counted = was[2] == '1' and was[3] ~= 'extra' and 1 or 0
  local rev, news = tonumber(was[1] or 0), false
  if one.skipped and was[4] ~= '1' then
    redis.call('HSET', key, 'skip:' .. name, '1')
    redis.call('HINCRBY', key, 'skips', 1)
    redis.call('SADD', p .. 'seen:' .. name, query)
    news = true
  end
  if one.rev < rev or (one.rev == rev and (one.live or was[2] ~= '1')) then return 0, news end
  for number, answer in pairs(one.answers) do redis.call('HSET', key, 'ans:' .. name .. ':' .. number, answer) end
  redis.call('HSET', key, 'rev:' .. name, one.rev, 'live:' .. name, one.live and '1' or '0', 'how:' .. name, one.how)
  if one.corrected then redis.call('HSET', key, 'corrected:' .. name, one.rev) end
  redis.call(one.live and 'SADD' or 'SREM', p .. 'seen:' .. name, query)
  return (one.live and one.how ~= 'extra' and 1 or 0) - counted, true
end

local function settle(about)
  local query, changed = about.id, false
  local got = tonumber(field(query, 'got')) or 0
  local before = got
  for _, one in ipairs(about.by) do
    local more, news = merge(query, one)
    got, changed = got + more, changed or news
  end
  if not changed and not about.dropped then return false end
  redis.call('HSET', qkey(query), 'got', got)
  if before == 0 and got > 0 then count_query(query, 'answered') end
  local state = field(query, 'state')
  if state == 'done' or state == 'dropped' then return changed end
  if got >= (tonumber(field(query, 'want')) or 1) then
    finish(query, 'done', now)
  elseif about.dropped and got == 0 then
    finish(query, 'dropped', now)
  end
  return true
end

local function admit(about)
  redis.call('HSET', p .. 'dedup', about.pair, about.id)
  local kind = about.only == '' and '' or 'addressed_'
  count(kind .. 'admitted')
  count(kind .. (about.answered and 'done' or 'dropped'))
  if about.answered then count(kind .. 'answered') end
end

for _, text in ipairs(ARGV) do
  local about = cjson.decode(text)
  local known, asked = whole(about.id), redis.call('HEXISTS', p .. 'dedup', about.pair) == 1
  if not known and not asked then
    admit(about)
    behind = behind + 1
  end
  if not known and about.again then
    create(about)
    for _, one in ipairs(about.by) do redis.call('HINCRBY', qkey(about.id), 'got', (merge(about.id, one))) end
  elseif known and settle(about) then
    behind = behind + 1
  end
end
return behind
