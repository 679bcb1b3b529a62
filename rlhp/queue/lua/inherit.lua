-- ARGV: consumer, idle ms, cursor, count. Returns what XAUTOCLAIM does: cursor, entries, ids of those trimmed
return redis.call('XAUTOCLAIM', ANSWERS, GROUP, ARGV[1], ARGV[2], ARGV[3], 'COUNT', ARGV[4])
