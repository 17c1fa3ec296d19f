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

/// Takes an `Idempotency-Key` that nobody holds, or a job that is gone. Keys: the key. Arguments: its
/// new holder, seconds to live, the holder that is gone. Answers who holds it else, or an empty text.
pub(super) const TAKE_KEY: &str = r"
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[3] then return held end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return ''
";

/// Keeps a key for its holder. Keys: the key. Arguments: its holder, who holds it from now on, seconds to
/// live. Answers 0 where it is another's.
pub(super) const KEEP_KEY: &str = r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
";

/// Frees a key. Keys: the key. Arguments: who may hold it.
pub(super) const FORGET_KEY: &str = r"
local held = redis.call('GET', KEYS[1])
if held == ARGV[1] or held == ARGV[2] then return redis.call('DEL', KEYS[1]) end
return 0
";

/// The first step of a job: its hash, its first event, an empty group. Keys: meta, events, urls.
/// Arguments: seconds to live, the event, then the hash's fields by name and value.
pub(super) const BEGIN: &str = r"
for at = 3, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end
redis.call('XADD', KEYS[2], '1-0', 't', 'metadata', 'd', ARGV[2])
redis.call('XGROUP', 'CREATE', KEYS[3], 'w', '0', 'MKSTREAM')
for at = 1, 3 do redis.call('EXPIRE', KEYS[at], ARGV[1]) end
return 1
";

/// Adds URLs to a job that is being made. Keys: meta, events, urls. Arguments: seconds to live, then
/// indexes and URLs. Answers 0 where there is no such job, as do the next two.
pub(super) const ADD_URLS: &str = r"
if redis.call('HGET', KEYS[1], 'status') ~= 'creating' then return 0 end
for at = 2, #ARGV, 2 do redis.call('XADD', KEYS[3], '*', 'i', ARGV[at], 'u', ARGV[at + 1]) end
for at = 1, 3 do redis.call('EXPIRE', KEYS[at], ARGV[1]) end
return 1
";

/// The last step: from now on there is the job. Keys: meta, events, urls. Arguments: seconds to live.
pub(super) const COMMIT: &str = r"
if redis.call('HGET', KEYS[1], 'status') ~= 'creating' then return 0 end
redis.call('HSET', KEYS[1], 'status', 'queued')
for at = 1, 3 do redis.call('EXPIRE', KEYS[at], ARGV[1]) end
return 1
";

/// Takes back a job that is being made. Keys: meta, events, urls. Answers 0 where there is one that is
/// not being made any more.
pub(super) const UNDO: &str = r"
local status = redis.call('HGET', KEYS[1], 'status')
if status and status ~= 'creating' then return 0 end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
return 1
";
