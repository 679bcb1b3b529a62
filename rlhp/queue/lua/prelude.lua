-- In front of every script: names of keys, the server's clock, and the moves of a query between its states.
-- KEYS[1] is the run's prefix `rlhp:{<run>}:`; all keys are built from it, legal because of the hash tag.
--
--   put --> reserved --ready--> pending <--lease/expire--> leased --answer--> done
--                 \______________drop, skip______________/                  (undo: done --> leased)
--
--   meta                HASH    schema, config sha256, cap, budget, state open/draining/closed, info:<name>;
--                               owner (token of the driver), owner_who (JSON), owner_beat (when it was last heard of)
--   q:<query>           HASH    state, body, fencing token, present holder, what each labeler did;
--                               `hidden` goes into the log and never to a labeler
--   paused              HASH    labeler -> why nothing is leased to it; empty where it was pardoned
--   pending             ZSET    0 -> `<put number>:<query>`: first come, first served
--   pending@<labeler>   ZSET    the same for queries addressed to one labeler, served first
--   reserved            ZSET    deadline -> query: admitted, clips not there yet
--   leased              ZSET    deadline -> query
--   held:<page>         ZSET    what a page holds;  holds:<labeler>  SET  over all its pages
--   open, finished      ZSET    when made -> query; when finished -> query, until its payloads are forgotten
--   seen:<labeler>      SET     answered or skipped: never offered again
--   dedup               HASH    digest of the candidates -> query, for as long as the run exists
--   seg:<segment>       STRING  encoded segment, shared by queries (`segrefs` counts them)
--   clip:<query>:<side> STRING  encoded video of the candidate `first`, `second`, `third` or `fourth`
--   answers             STREAM  the log, read by the group `reward`
--   aside               STREAM  entries of the log that made no row, whole, with the reason: the newest of them
--   clock               STRING  the latest time that was seen here: earlier ones mean that the clock was set back
--   counts, labelers, labeler:<name>, times:<name>, history:<name>, addressees
-- ARGV[1] is the token of the run's owner, or '' from those who own nothing: labelers and pages. The rest is ARGV.
local p = KEYS[1]
local OWNER, ARGV = ARGV[1], { unpack(ARGV, 2) }
local ANSWERS, GROUP = p .. 'answers', 'reward'
local KEEP_MS = 1800000         -- payloads and clips after a query is finished, unless info:keep_ms says otherwise
local KEEP_QUERY_S = 86400      -- `q:` after that: late answers need it
local HELD_S = 86400
local RESERVE_MS = 600000       -- a query without its clips gives up its place then
local ABSENT_MS = 86400000      -- queries addressed to a labeler unseen for so long are dropped
local LEASES_PER_LABELER = 4
local HOLD = 15                 -- nobody holds a query longer than this many lease times
local SET_BACK_MS = 1000        -- less is a clock that is being adjusted

-- An owner that another one has replaced changes nothing any more, and reads nothing.
if OWNER ~= '' then
  local owner = redis.call('HGET', p .. 'meta', 'owner')
  if owner and owner ~= OWNER then
    return redis.error_reply('TAKENOVER ' .. (redis.call('HGET', p .. 'meta', 'owner_who') or '{}'))
  end
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function qkey(query) return p .. 'q:' .. query end
local function field(query, name) return redis.call('HGET', qkey(query), name) or '' end
local function count(name, by) return redis.call('HINCRBY', p .. 'counts', name, by or 1) end
local function whole(query) return redis.call('HEXISTS', qkey(query), 'member') == 1 end

-- Queries addressed to one labeler are checks: they are counted apart, and no budget pays for them.
local function count_query(query, name, by)
  return count((field(query, 'only') == '' and '' or 'addressed_') .. name, by)
end

-- At `maxmemory` Redis refuses a growing command only while a script has not written yet. Work already done
-- must never be refused for want of memory, so scripts that record it begin with a write that cannot grow.
local function past_memory_limit() redis.call('ZREM', p .. 'leased', '') end

local function touch(labeler, now)
  redis.call('SADD', p .. 'labelers', labeler)
  redis.call('HSET', p .. 'labeler:' .. labeler, 'last_seen', now)
end

local function tally(labeler, name, by) redis.call('HINCRBY', p .. 'labeler:' .. labeler, name, by or 1) end

local function pending_key(query)
  local only = field(query, 'only')
  return only == '' and p .. 'pending' or p .. 'pending@' .. only
end

local function to_pending(query)
  -- `member` begins with the put number, so queries are served in the order in which they came.
  redis.call('ZADD', pending_key(query), 0, field(query, 'member'))
  redis.call('HSET', qkey(query), 'state', 'pending')
end

local function holder(query)
  local token = field(query, 'holder')
  return token == '' and '' or field(query, 't:' .. token)
end

local function issue(query, labeler)
  local token = redis.call('HINCRBY', qkey(query), 'token', 1)
  redis.call('HSET', qkey(query), 't:' .. token, labeler)
  return token
end

local function claim(query, labeler, page, ttl, hold, now)
  local token = issue(query, labeler)
  redis.call('HSET', qkey(query), 'state', 'leased', 'holder', token, 'page', page, 'at', now, 'ttl', ttl, 'hold', hold)
  redis.call('HSET', qkey(query), 'at:' .. token, now)
  redis.call('ZADD', p .. 'leased', now + ttl, query)
  redis.call('ZADD', p .. 'held:' .. page, count('grants'), query)
  redis.call('EXPIRE', p .. 'held:' .. page, HELD_S)
  redis.call('SADD', p .. 'holds:' .. labeler, query)
  return token, now + ttl
end

local function renew(query, now)
  local held = redis.call('HMGET', qkey(query), 'at', 'ttl', 'hold')
  local deadline = math.min(now + held[2], held[1] + held[3])
  redis.call('ZADD', p .. 'leased', deadline, query)
  return deadline
end

local function end_claim(query)
  redis.call('ZREM', p .. 'leased', query)
  redis.call('ZREM', p .. 'held:' .. field(query, 'page'), query)
  redis.call('SREM', p .. 'holds:' .. holder(query), query)
  redis.call('HSET', qkey(query), 'holder', '', 'page', '')
end

-- Queries this page holds now, in the order in which it got them. What it lost meanwhile is forgotten.
local function held_by(page)
  local held = {}
  for _, query in ipairs(redis.call('ZRANGE', p .. 'held:' .. page, 0, -1)) do
    if field(query, 'page') == page then
      held[#held + 1] = query
    else
      redis.call('ZREM', p .. 'held:' .. page, query)
    end
  end
  return held
end

-- A query whose `q:` was lost is left to nobody: it leaves the lists and gives its place in the budget back.
local function forget(query)
  for _, list in ipairs({ 'leased', 'reserved', 'finished' }) do redis.call('ZREM', p .. list, query) end
  if redis.call('ZREM', p .. 'open', query) == 1 then count('dropped') end
end

-- Where the server's clock was set back, everything stamped goes back with it: no lease lasts that much longer.
local function follow_clock(now)
  local back = tonumber(redis.call('GET', p .. 'clock') or 0) - now
  if back > 0 and back <= SET_BACK_MS then return end
  redis.call('SET', p .. 'clock', now)
  if back <= 0 then return end
  for _, query in ipairs(redis.call('ZRANGE', p .. 'leased', 0, -1)) do
    if whole(query) then
      redis.call('HINCRBY', qkey(query), 'at', -back)
      redis.call('HINCRBY', qkey(query), 'at:' .. field(query, 'holder'), -back)
    end
  end
  for _, list in ipairs({ 'leased', 'reserved', 'open', 'finished' }) do
    for _, query in ipairs(redis.call('ZRANGE', p .. list, 0, -1)) do redis.call('ZINCRBY', p .. list, -back, query) end
  end
  for _, labeler in ipairs(redis.call('SMEMBERS', p .. 'labelers')) do
    local facts = p .. 'labeler:' .. labeler
    if redis.call('HEXISTS', facts, 'last_seen') == 1 then redis.call('HINCRBY', facts, 'last_seen', -back) end
  end
end

local function return_expired(now)
  follow_clock(now)
  local due = redis.call('ZRANGEBYSCORE', p .. 'leased', '-inf', now)
  for _, query in ipairs(due) do
    if whole(query) then
      end_claim(query)
      to_pending(query)
      count('expired')
    else
      forget(query)
    end
  end
  return #due
end

-- The ids of its segments as a JSON list. Queries that were put when all were pairs have two fields.
local function candidates_of(query)
  local ids = redis.call('HMGET', qkey(query), 'candidates', 'first', 'second')
  return ids[1] or cjson.encode({ ids[2] or '', ids[3] or '' })
end

-- Whether the answer names a candidate that the query has not. Of all other words the scripts know nothing.
local PLACE = { third = 3, fourth = 4 }

local function beyond(query, answer)
  return (PLACE[answer] or 0) > #cjson.decode(candidates_of(query))
end

-- One entry of the log. Whatever a reader needs is inside: `q:` may be gone when it gets there.
local function record(event, query, labeler, page, token, rev, answer, how, meta)
  local about = redis.call('HMGET', qkey(query), 'body', 'made', 'hidden', 'at:' .. token)
  local id = redis.call('XADD', ANSWERS, '*', 'ev', event, 'id', query, 'by', labeler, 'page', page, 'tok', token,
    'rev', rev, 'ans', answer, 'how', how, 'meta', meta,
    'candidates', candidates_of(query), 'body', about[1], 'made', about[2],
    'hidden', about[3] or '{}', 'leased', about[4] or '', 'at', string.format('%.0f', now_ms()))
  redis.call('HSET', qkey(query), 'last', id)
  count('events')
end

local function leave(query)
  local state = field(query, 'state')
  if state == 'leased' then
    end_claim(query)
  elseif state == 'pending' then
    redis.call('ZREM', pending_key(query), field(query, 'member'))
  else
    redis.call('ZREM', p .. 'reserved', query)
  end
end

local function finish(query, state, now)
  leave(query)
  redis.call('HSET', qkey(query), 'state', state)
  redis.call('ZREM', p .. 'open', query)
  redis.call('ZADD', p .. 'finished', now, query)
  count_query(query, state)
end

-- A query that already has a counted answer is not dropped but done with fewer answers than wanted.
local function drop(query, now, about)
  if tonumber(field(query, 'got')) > 0 then return finish(query, 'done', now) end
  finish(query, 'dropped', now)
  record('drop', query, '', '', '0', '0', '', '', about or '{}')
end

local function unref_payloads(query)
  for id in string.gmatch(field(query, 'payloads'), '%S+') do
    if redis.call('HINCRBY', p .. 'segrefs', id, -1) <= 0 then
      redis.call('HDEL', p .. 'segrefs', id)
      redis.call('DEL', p .. 'seg:' .. id)
    end
  end
end

local SIDES = { 'first', 'second', 'third', 'fourth' }

local function clip_keys(query)
  local keys = {}
  for place in ipairs(cjson.decode(candidates_of(query))) do keys[place] = p .. 'clip:' .. query .. ':' .. SIDES[place] end
  return keys
end

local function before(one, other)
  local ms, seq = string.match(one, '(%d+)-(%d+)')
  local other_ms, other_seq = string.match(other, '(%d+)-(%d+)')
  if ms ~= other_ms then return tonumber(ms) < tonumber(other_ms) end
  return tonumber(seq) < tonumber(other_seq)
end

-- What Redis says of the readers' group; nil without one.
local function reader_group()
  local groups = redis.pcall('XINFO', 'GROUPS', ANSWERS)
  if groups.err then return nil end
  for _, group in ipairs(groups) do
    local facts = {}
    for i = 1, #group, 2 do facts[group[i]] = group[i + 1] end
    if facts['name'] == GROUP then return facts end
  end
end

-- First entry that is not known to be on the reader's disk: smallest un-acked one, else the newest delivered
-- (kept on purpose: nothing before it is needed). nil without a reader group.
local function horizon()
  local group = reader_group()
  if not group then return nil end
  local unacked = redis.call('XPENDING', ANSWERS, GROUP)
  if unacked[1] > 0 then return unacked[2], false end
  return group['last-delivered-id'], true
end

-- Forget payloads and clips of queries finished long ago, but never before the last event of a query is acked:
-- a reward trainer that was down still needs them.
local function tidy(now, limit)
  local keep_ms = tonumber(redis.call('HGET', p .. 'meta', 'info:keep_ms') or KEEP_MS)
  local due = redis.call('ZRANGEBYSCORE', p .. 'finished', '-inf', now - keep_ms, 'LIMIT', 0, limit)
  if #due == 0 then return end
  local edge, inclusive = horizon()
  for _, query in ipairs(due) do
    local last = field(query, 'last')
    if edge and (last == '' or before(last, edge) or (inclusive and last == edge)) then
      unref_payloads(query)
      redis.call('DEL', unpack(clip_keys(query)))
      redis.call('HSET', qkey(query), 'tidied', '1')
      redis.call('EXPIRE', qkey(query), KEEP_QUERY_S)
      redis.call('ZREM', p .. 'finished', query)
    end
  end
end
