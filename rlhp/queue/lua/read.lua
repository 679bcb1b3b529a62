-- ARGV: consumer, cursor ('>' = what nobody was given yet), count. Returns entries: id and fields, nil for a trimmed one
local reply = redis.call('XREADGROUP', 'GROUP', GROUP, ARGV[1], 'COUNT', ARGV[3], 'STREAMS', ANSWERS, ARGV[2])
return reply and reply[1][2] or {}
