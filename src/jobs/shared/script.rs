//! What Redis does in one step, whoever asks for it and however often: Lua, each script over the keys
//! of one job, which are in one slot.

/// Writes what became of a URL, once, and the summary behind the last one.
///
/// Keys: meta, events, urls, done. Arguments: index, the claim's id, `ok`, `failed` or `cancelled`, 1
/// where the page was in the cache, the result's JSON, the time in ms, 1 where the job's time was up.
/// Answers the job's status and `new`, `old` (the index had its result) or `last`; nothing where
/// there is no such job any more.
pub(super) const APPEND: &str = r"
local m = redis.call('HMGET', KEYS[1], 'status', 'total', 'retention', 'created')
if not m[1] then return {} end
redis.call('XACK', KEYS[3], 'w', ARGV[2])
redis.call('XDEL', KEYS[3], ARGV[2])
if redis.call('SETBIT', KEYS[4], ARGV[1], 1) == 1 then return {m[1], 'old'} end
redis.call('HINCRBY', KEYS[1], ARGV[3], 1)
if ARGV[4] == '1' then redis.call('HINCRBY', KEYS[1], 'cached', 1) end
if ARGV[7] == '1' then redis.call('HSET', KEYS[1], 'late', '1') end
redis.call('HINCRBY', KEYS[1], 'bytes', #ARGV[5])
redis.call('HSETNX', KEYS[1], 'first', ARGV[6])
local c = redis.call('HMGET', KEYS[1], 'ok', 'failed', 'cancelled', 'cached', 'first', 'late')
local seq = redis.call('HINCRBY', KEYS[1], 'seq', 1)
redis.call('XADD', KEYS[2], string.format('%d-0', seq + 1), 't', 'result', 'i', ARGV[1],
  'ok', c[1], 'failed', c[2], 'cancelled', c[3], 'cached', c[4], 'd', ARGV[5])
if c[1] + c[2] + c[3] < tonumber(m[2]) then return {m[1], 'new'} end
local status, word = 'completed', 'completed'
if c[6] then
  status, word = 'failed', 'deadline_exceeded'
elseif m[1] == 'cancelling' then
  status, word = 'cancelled', 'cancelled'
end
seq = redis.call('HINCRBY', KEYS[1], 'seq', 1)
redis.call('XADD', KEYS[2], string.format('%d-0', seq + 1), 't', 'summary',
  'ok', c[1], 'failed', c[2], 'cancelled', c[3], 'cached', c[4], 'word', word,
  'ms', string.format('%d', ARGV[6] - m[4]), 'ttfr', string.format('%d', c[5] - m[4]))
redis.call('HSET', KEYS[1], 'status', status, 'ended', ARGV[6])
redis.call('DEL', KEYS[3])
for at = 1, 4 do redis.call('EXPIRE', KEYS[at], m[3]) end
return {status, 'last'}
";

/// The first claim of a job's URLs: it runs now. Keys: meta. Arguments: the time in ms.
pub(super) const START: &str = r"
if redis.call('HGET', KEYS[1], 'status') == 'queued' then
  redis.call('HSET', KEYS[1], 'status', 'running', 'started', ARGV[1])
end
return 1
";

/// Ends a job early: what is claimed from now on is not fetched. Keys: meta. Answers its status.
pub(super) const CANCEL: &str = r"
local status = redis.call('HGET', KEYS[1], 'status')
if status == 'queued' or status == 'running' then
  status = 'cancelling'
  redis.call('HSET', KEYS[1], 'status', status)
end
return status
";

/// Notes how the delivery of a job's webhook stands, if there still is such a job. Keys: meta.
/// Arguments: state, attempts, status, error.
pub(super) const NOTE: &str = r"
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'hook', ARGV[1], 'hook_attempts', ARGV[2], 'hook_status', ARGV[3],
  'hook_error', ARGV[4])
return 1
";

/// Takes the delivery that is due, and leaves it to others only after a while. Keys: the deliveries.
/// Arguments: the time in ms, when others may take it. Answers its job.
pub(super) const TAKE: &str = r"
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, 1)
if #due == 0 then return false end
redis.call('ZADD', KEYS[1], ARGV[2], due[1])
return due[1]
";
