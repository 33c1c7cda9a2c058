-- One project's outbox in one hash slot: each call is one operation of the contract, whole or not
-- at all. redis.py calls it and has the layout of heads, frames.py of messages.
--
-- Below the tag KEYS[1], where <l> is t, i, e or g, the endpoint's first letter:
--   <l>              the stream with an entry's messages, its ID the entry's
--   <l>:moved        ids that are not in the stream any more: a stream cannot insert
--   <l>:ready        ids that were read from the stream, or moved, and wait again
--   <l>:until        ids that are leased or held back, by the moment at which that ends
--   <l>:since        those of them that are leased, by the moment before which that cannot be
--   aside            ids that wait for an alias
--   moved            messages of what is in <l>:moved or aside, by id
--   heads            everything else about an entry, by id: this says what waits
--   of:<key>         ids under a visitor's key; alias:<key> ids of a user's aliases
--   attempts         releases by id; overdue: leases that ran out since the last release, by id
--   dead             the stream of dead letters; dead:of:<key> their ids under a visitor's key
--   marks            keys under a stop mark; stopped_until: of the newest mark that had to go
--   stopping         those of them under which something may wait still: it is removed in rounds
--   seen             tickets' sources and what was handed over, by when; tickets: last numbers
--   lease:<sender>   number, line, end and ids of a sender's last lease; goes by itself
--   sizes, totals    sums; sizes also has the last id that was read, next id, last letter, how many
--                    leases there were, and with which id the outbox began

local GROUP, CONSUMER = 'drain', 'drain'
local LINES = {'t', 'i', 'e', 'g'}
local KEEPS_ORDER = {t = true, e = true, g = true}
local AWAITS_ALIASES = {i = true, e = true}
local REPEATABLE, IDENTITY = 1, 2  -- bits of the flags
local HEAD = '>c1BI4I4ddI2'
local MESSAGE = '<I4I4I4'  -- before each message, as frames.py has it
local MAX_UNREPEATABLE = 50  -- messages in a lease
local ALONE_AFTER = 3    -- leases that ran out; what may have killed its senders goes alone
local READ_AT_ONCE = 32  -- entries; each may have 1 MB
local ROUND = 1000       -- removals in one call, so that others are served between
local ARGUMENTS = 4000   -- of one command; Lua's stack has room for 8000
local LEASES = 4000      -- microseconds apart; then again, and time has gone on
local CLOCK_SECONDS = 3600  -- what a mark may be ahead, as in stopping.py
local AHEAD_SECONDS = 60  -- and what an event may be
local VOID = 2 ^ 53 - 1  -- number of a ticket that will never be honoured
local TYPES = {
  sizes = 'hash', totals = 'hash', heads = 'hash', moved = 'hash', tickets = 'hash',
  aside = 'zset', seen = 'zset', marks = 'zset', stopped_until = 'string',
  t = 'stream', i = 'stream', e = 'stream', g = 'stream'}

local tag = KEYS[1]
local call = redis.call
local has_key, known, sums, counts = {}, {}, {}, {}  -- sizes as they were, and what this call adds
local notes = {}  -- calls that say that all the others were done
local next_id = nil

local function key(name) return tag .. ':' .. name end
local function text(number) return string.format('%.0f', number) end
local function stream_id(id) return id .. '-1' end  -- 0-0 is none
local function add_size(name, number) sums[name] = (sums[name] or 0) + number end
local function count(name, number) counts[name] = (counts[name] or 0) + number end
local function note(...) notes[#notes + 1] = {...} end

local function size(name)
  if not known[name] then known[name] = tonumber(call('HGET', key('sizes'), name) or 0) end
  return known[name] + (sums[name] or 0)
end

local function commit()
  for name, number in pairs(sums) do
    if number ~= 0 then call('HINCRBY', key('sizes'), name, text(number)) end
  end
  for name, number in pairs(counts) do
    if number ~= 0 then call('HINCRBY', key('totals'), name, text(number)) end
  end
  for _, arguments in ipairs(notes) do call(unpack(arguments)) end
end

local function check_type(name, expected)
  local found = call('TYPE', key(name)).ok
  if found ~= 'none' and found ~= expected then
    error('WRONGTYPE ' .. key(name) .. ' is a ' .. found .. ', and no ' .. expected)
  end
end

-- A call that fails half-way is not undone: what can be known before is looked at before.
local function check_types()
  for name, expected in pairs(TYPES) do check_type(name, expected) end
end

-- A server that is full refuses a script's first write alone, unless it can only remove.
local function begin_though_full() call('HDEL', key('heads'), '') end

local function server_time()
  local time = call('TIME')
  return time[1] + time[2] / 1e6
end

-- Ids are at least the server's time: none comes twice, whatever the server, or one that takes its
-- place, has lost. They are written first, so that what fails half-way has used its ids.
local function take_ids(messages)
  if not next_id then
    local last, time = call('HGET', key('sizes'), 'next'), math.floor(server_time() * 1e6)
    if not last then call('HSET', key('sizes'), 'began', text(time)) end
    next_id = math.max(tonumber(last or 0), time)
  end
  next_id = next_id + messages
  call('HSET', key('sizes'), 'next', text(next_id))
  return next_id - messages
end

-- Whether a key was there when it was first asked for: most entries pass without any of these.
local function has(name)
  if has_key[name] == nil then has_key[name] = call('EXISTS', key(name)) == 1 end
  return has_key[name]
end

local function call_all(command, name, list)
  for first = 1, #list, ARGUMENTS do
    call(command, key(name), unpack(list, first, math.min(first + ARGUMENTS - 1, #list)))
  end
end

local function parse(head)
  local line, flags, messages, bytes, tracked_at, put_at, length, start =
    struct.unpack(HEAD, head)
  return {
    head = head, line = line, messages = messages, bytes = bytes, flags = flags,
    is_repeatable = flags % 2 == REPEATABLE, is_identity = flags >= IDENTITY,
    tracked_at = tracked_at, put_at = put_at,
    device = string.sub(head, start, start + length - 1), user = string.sub(head, start + length),
  }
end

local function render(entry, messages, bytes)
  return struct.pack(HEAD, entry.line, entry.flags, messages, bytes, entry.tracked_at,
    entry.put_at, #entry.device) .. entry.device .. entry.user
end

local function find(id)
  local head = call('HGET', key('heads'), id)
  return head and parse(head)
end

local function each_key(entry, act)
  if entry.device ~= '' then act(entry.device) end
  if entry.user ~= '' and entry.user ~= entry.device then act(entry.user) end
end

local function is_alias(entry) return entry.line == 't' and entry.user ~= '' end

local function first_of_stream(name, from)
  local found = call('XRANGE', key(name), from or '-', '+', 'COUNT', 1)[1]
  return found and tonumber(string.match(found[1], '^%d+'))
end

local function first_of_set(name) return tonumber(call('ZRANGE', key(name), 0, 0)[1]) end

local function least(one, other)
  return one and other and math.min(one, other) or one or other
end

local function first_of(line)
  return least(first_of_stream(line), first_of_set(line .. ':moved'))
end

local function last_read(line) return size('read:' .. line) - 1 end

local function read(line, maximum)
  local arguments = {
    'XREADGROUP', 'GROUP', GROUP, CONSUMER, 'COUNT', maximum, 'STREAMS', key(line), '>'}
  local found = redis.pcall(unpack(arguments))
  if found and found.err then
    if not string.find(found.err, 'NOGROUP') then error(found) end
    call('XGROUP', 'CREATE', key(line), GROUP, '0', 'MKSTREAM')
    found = call(unpack(arguments))
  end
  local entries = {}
  for _, item in ipairs(found and found[1][2] or {}) do
    entries[#entries + 1] = {id = tonumber(string.match(item[1], '^%d+')), payload = item[2][2]}
  end
  if #entries > 0 then
    add_size('read:' .. line, entries[#entries].id - last_read(line))
  end
  return entries
end

local function set_ready(line, id) call('ZADD', key(line .. ':ready'), id, id) end

-- Whatever is held was read before, so that reading finds only what is ready.
local function read_until(line, id)
  while last_read(line) < id do
    local entries = read(line, READ_AT_ONCE)
    if #entries == 0 then return end
    for _, entry in ipairs(entries) do set_ready(line, text(entry.id)) end
  end
end

local function add_held(entry, sign)
  add_size('held_messages:' .. entry.line, sign * entry.messages)
  add_size('held_bytes:' .. entry.line, sign * entry.bytes)
end

-- Return whether it was held, and whether by a lease.
local function let_go(id, entry)
  if call('ZREM', key(entry.line .. ':until'), id) == 0 then return false, false end
  add_held(entry, -1)
  local is_leased = call('ZREM', key(entry.line .. ':since'), id) == 1
  if is_leased then add_size('leased', -entry.messages) end
  return true, is_leased
end

-- Of very many a part: the next call goes on, and until then they are held.
local function end_holds(line, now)
  local over = call('ZRANGEBYSCORE', key(line .. ':until'), '-inf', now, 'LIMIT', 0, ROUND)
  -- A lease that lasts longer than it may was made before the clock was set back.
  local impossible = call(
    'ZRANGEBYSCORE', key(line .. ':since'), '(' .. now, '+inf', 'LIMIT', 0, ROUND)
  for _, ids in ipairs({over, impossible}) do
    for _, id in ipairs(ids) do
      local entry = find(id)
      local was_held, was_leased = false, false
      if entry then
        was_held, was_leased = let_go(id, entry)
      else  -- evicted
        call('ZREM', key(line .. ':until'), id)
        call('ZREM', key(line .. ':since'), id)
      end
      if was_leased then call('HINCRBY', key('overdue'), id, 1) end
      if was_held then set_ready(line, id) end
    end
  end
end

-- The caller's clock, set by the server's: the leases of all hosts run on one clock. Less than a
-- second is the way there.
local function shared_time(now, wall)
  local skew = server_time() - tonumber(wall)
  return string.format('%.17g', tonumber(now) + (math.abs(skew) < 1 and 0 or skew))
end

local function index(id, entry)
  each_key(entry, function(name) call('SADD', key('of:' .. name), id) end)
  if is_alias(entry) then call('ZADD', key('alias:' .. entry.user), id, id) end
end

-- Whether a stop ends an entry, as stopping.py has it. Not by the shared clock: the host that put an
-- entry, or stopped it, dated it by its own.
local function is_ended(entry, at, now)
  return entry.tracked_at <= tonumber(at) or entry.tracked_at > tonumber(now) + AHEAD_SECONDS
end

local function is_stopped(entry, now)
  if not has('marks') and not has('stopped_until') then return false end
  local last = tonumber(call('GET', key('stopped_until')) or '-inf')
  local is_hit = entry.tracked_at <= last  -- nobody knows any more whom that mark stopped
  each_key(entry, function(name)
    local mark = call('ZSCORE', key('marks'), name)
    is_hit = is_hit or (mark and is_ended(entry, mark, now))
  end)
  return is_hit
end

local function add(entry, payload)
  local id = text(take_ids(entry.messages))
  add_size('messages', entry.messages)
  add_size('bytes', entry.bytes)
  -- Whatever alias waits already came before it.
  if AWAITS_ALIASES[entry.line] and entry.user ~= ''
    and call('EXISTS', key('alias:' .. entry.user)) == 1 then
    call('ZADD', key('aside'), id, id)
    call('HSET', key('moved'), id, payload)
    add_size('aside', entry.messages)
  else
    call('XADD', key(entry.line), stream_id(id), 'e', payload)
    add_size('messages:' .. entry.line, entry.messages)
    add_size('bytes:' .. entry.line, entry.bytes)
  end
  index(id, entry)
  call('HSET', key('heads'), id, entry.head)  -- last: without it there is no entry
end

local function readmit(user)
  local open_from = tonumber(call('ZRANGE', key('alias:' .. user), 0, 0)[1] or 'inf')
  for _, id in ipairs(call('SMEMBERS', key('of:' .. user))) do
    local entry = tonumber(id) < open_from and find(id)
    -- Not a device of the same key.
    if entry and entry.user == user and call('ZREM', key('aside'), id) == 1 then
      call('ZADD', key(entry.line .. ':moved'), id, id)
      set_ready(entry.line, id)
      add_size('aside', -entry.messages)
      add_size('messages:' .. entry.line, entry.messages)
      add_size('bytes:' .. entry.line, entry.bytes)
    end
  end
end

-- Take an entry out of its place. Return whether it stood aside.
local function displace(id, entry, gone)
  if has('aside') and call('ZREM', key('aside'), id) == 1 then
    add_size('aside', -entry.messages)
    call('HDEL', key('moved'), id)
    return true
  end
  let_go(id, entry)
  add_size('messages:' .. entry.line, -entry.messages)
  add_size('bytes:' .. entry.line, -entry.bytes)
  local ids = gone[entry.line] or {}
  gone[entry.line] = ids
  ids[#ids + 1] = id
  return false
end

local function clear(gone)
  for line, ids in pairs(gone) do
    local stream_ids = {GROUP}
    for number, id in ipairs(ids) do stream_ids[number + 1] = stream_id(id) end
    for first = 2, #stream_ids, ARGUMENTS do
      local last = math.min(first + ARGUMENTS - 1, #stream_ids)
      call('XACK', key(line), GROUP, unpack(stream_ids, first, last))
      call('XDEL', key(line), unpack(stream_ids, first, last))
    end
    call_all('ZREM', line .. ':ready', ids)
    call_all('ZREM', line .. ':moved', ids)
    for _, name in ipairs({'moved', 'attempts', 'overdue'}) do
      if has(name) then call_all('HDEL', name, ids) end
    end
  end
end

-- Return how many messages went.
local function remove(ids)
  local removed, gone, users, removed_ids, is_removed = 0, {}, {}, {}, {}
  for _, id in ipairs(ids) do
    local entry = not is_removed[id] and find(id)
    if entry then
      is_removed[id] = true
      removed_ids[#removed_ids + 1] = id
      displace(id, entry, gone)
      each_key(entry, function(name) call('SREM', key('of:' .. name), id) end)
      if is_alias(entry) then
        call('ZREM', key('alias:' .. entry.user), id)
        users[#users + 1] = entry.user
      end
      add_size('messages', -entry.messages)
      add_size('bytes', -entry.bytes)
      removed = removed + entry.messages
    end
  end
  clear(gone)
  call_all('HDEL', 'heads', removed_ids)
  for _, user in ipairs(users) do readmit(user) end
  return removed
end

local function payload_of(id, entry)
  local found = call('XRANGE', key(entry.line), stream_id(id), stream_id(id))[1]
  return found and found[2][2] or call('HGET', key('moved'), id)
end

-- Return each message as it is in the payload, and the bytes that each takes in a batch.
local function messages_of(payload)
  local messages, bytes, start = {}, {}, 1
  while start <= #payload do
    local name, insert_id, body, first = struct.unpack(MESSAGE, payload, start)
    local last = first + name + insert_id + body - 1
    messages[#messages + 1] = string.sub(payload, start, last)
    bytes[#bytes + 1] = body + 1
    start = last + 1
  end
  return messages, bytes
end

local function remove_letter(letter)
  local fields = letter[2]
  local entry = parse(fields[2])
  local id = string.match(letter[1], '^%d+')
  each_key(entry, function(name) call('SREM', key('dead:of:' .. name), id) end)
  add_size('letter_bytes', -entry.bytes)
  return call('XDEL', key('dead'), letter[1])
end

local function find_letter(id)
  return call('XRANGE', key('dead'), stream_id(id), stream_id(id))[1]
end

-- Remove the oldest letters beyond the bounds; after a bound was lowered, a part with each burial.
local function give_up_letters(most, most_bytes, buried)
  local lost, letters = 0, call('XLEN', key('dead'))
  local maximum = math.min(letters, ROUND + buried)
  while lost < maximum
    and (letters - lost > tonumber(most) or size('letter_bytes') > tonumber(most_bytes)) do
    remove_letter(call('XRANGE', key('dead'), '-', '+', 'COUNT', 1)[1])
    lost = lost + 1
  end
  count('letters_lost:', lost)
end

-- The bounds are now, the oldest that may be put, the most messages and the most bytes.
local function accept(entry, payload, bounds, result)
  local now, oldest, max_messages, max_bytes = unpack(bounds)
  count('accepted:', entry.messages)
  if is_stopped(entry, now) then
    count('dropped:stopped', entry.messages)
    result[2] = result[2] + entry.messages
  elseif entry.tracked_at < tonumber(oldest) then
    count('dropped:too_old', entry.messages)
    result[4] = result[4] + entry.messages
  elseif not entry.is_identity and (size('messages') + entry.messages > tonumber(max_messages)
    or size('bytes') + entry.bytes > tonumber(max_bytes)) then
    count('dropped:overflow', entry.messages)
    result[3] = result[3] + entry.messages
  else
    add(entry, payload)
    result[1] = result[1] + entry.messages
  end
end

local function last_number(source) return tonumber(call('HGET', key('tickets'), source) or -1) end

local function note_ticket(source, number, now)
  call('ZADD', key('seen'), now, source)
  note('HSET', key('tickets'), source, text(number))
end

-- Answer whether a ticket is new, and remember it as long as its source is met.
local function take_ticket(source, number, now)
  if source == '' then return true end
  if tonumber(number) > last_number(source) then
    note_ticket(source, tonumber(number), now)
    return true
  end
  begin_though_full()
  call('ZADD', key('seen'), 'GT', now, source)
  return false
end

-- Nothing was stopped so much later than now: only a clock that was ahead can have said so.
local function correct_clock(now)
  local latest = string.format('%.17g', now + CLOCK_SECONDS)
  if has('marks') then
    for _, name in ipairs(
      call('ZRANGEBYSCORE', key('marks'), '(' .. latest, '+inf', 'LIMIT', 0, ROUND)) do
      call('ZADD', key('marks'), now, name)
    end
  end
  if has('stopped_until') and tonumber(call('GET', key('stopped_until'))) > tonumber(latest) then
    call('SET', key('stopped_until'), now)
  end
end

-- An entry as if it was put at that time, by the clock that all hosts share.
local function put_at(head, now)
  local entry = parse(head)
  entry.put_at = tonumber(now)
  entry.head = render(entry, entry.messages, entry.bytes)
  return entry
end

local operations = {}

-- Return what became of the messages, and with which id the outbox began.
function operations.put(now, wall, oldest, max_messages, max_bytes, source, number, entries)
  local result, bounds = {0, 0, 0, 0}, {now, oldest, max_messages, max_bytes}
  now = shared_time(now, wall)
  check_types()
  if take_ticket(source, number, now) then
    correct_clock(now)
    for place = 1, #entries, 2 do
      accept(put_at(entries[place], now), entries[place + 1], bounds, result)
    end
  end
  result[5] = call('HGET', key('sizes'), 'began')
  return result
end

-- Whether a put whose answer was lost has not been done, and will not be from now on.
local function is_void(source, number, now)
  local last = last_number(source)
  if last < number then note_ticket(source, VOID, now) end
  return last < number or last == VOID
end

function operations.time() return string.format('%.17g', server_time()) end

local function check_types_of(entry)
  each_key(entry, function(name) check_type('of:' .. name, 'set') end)
  if entry.user ~= '' then check_type('alias:' .. entry.user, 'zset') end
end

-- Entries each with a label that no other has, and the ticket under which it was perhaps put.
function operations.take_over(now, wall, oldest, max_messages, max_bytes, ends_at, items)
  if server_time() > tonumber(ends_at) then return false end
  local result, bounds = {0, 0, 0, 0}, {now, oldest, max_messages, max_bytes}
  check_types()
  for place = 4, #items, 5 do check_types_of(parse(items[place])) end
  now = shared_time(now, wall)
  correct_clock(now)
  for place = 1, #items, 5 do
    local label, source, number, head, payload = unpack(items, place, place + 4)
    if not call('ZSCORE', key('seen'), label) then
      note('ZADD', key('seen'), now, label)
      if source == '' or is_void(source, tonumber(number), now) then
        accept(put_at(head, now), payload, bounds, result)
      end
    end
  end
  return result
end

-- Labels of what is handed over for good: kept until nothing on its way can arrive any more.
function operations.let_expire(at, wall, labels)
  at = shared_time(at, wall)
  for _, label in ipairs(labels) do call('ZADD', key('seen'), 'XX', at, label) end
  return 0
end

function operations.backlog(line, now, wall)
  end_holds(line, shared_time(now, wall))
  local first = least(first_of_set(line .. ':ready'),
    first_of_stream(line, text(last_read(line) + 1)))
  if not first or (KEEPS_ORDER[line] and first ~= first_of(line)) then return {0, 0, ''} end
  local entry = find(text(first))
  return {
    size('messages:' .. line) - size('held_messages:' .. line),
    size('bytes:' .. line) - size('held_bytes:' .. line),
    entry and string.format('%.17g', entry.put_at) or '',
  }
end

-- Answer a function that gives the oldest ready entry, and one that keeps what it read in vain.
local function offer(line, maximum)
  local returned = call('ZRANGE', key(line .. ':ready'), 0, maximum - 1)
  local fresh, is_all_read = {}, false
  local next_returned, next_fresh = 1, 1
  local function peek()
    local old = tonumber(returned[next_returned])
    if not fresh[next_fresh] and not is_all_read and (not old or old > last_read(line)) then
      fresh, next_fresh = read(line, READ_AT_ONCE), 1
      is_all_read = #fresh == 0
    end
    local new = fresh[next_fresh]
    if new and (not old or new.id < old) then
      return new.id, new.payload, function() next_fresh = next_fresh + 1 end
    end
    return old, nil, function()
      call('ZREM', key(line .. ':ready'), returned[next_returned])
      next_returned = next_returned + 1
    end
  end
  local function keep_rest()
    for place = next_fresh, #fresh do set_ready(line, text(fresh[place].id)) end
  end
  return peek, keep_rest
end

-- The first entry that holds back those behind it; nil where none does.
local function barrier_of(line)
  local barrier = nil
  if KEEPS_ORDER[line] then
    for _, id in ipairs(call('ZRANGE', key(line .. ':until'), 0, -1)) do
      barrier = least(barrier, tonumber(id))
    end
  end
  return barrier
end

local function note_lease(sender, number, line, ends_at, ids, keep_seconds)
  local ids_of = table.concat(ids, ' ')
  call('SET', key('lease:' .. sender), number .. ' ' .. line .. ' ' .. ends_at .. ' ' .. ids_of,
    'EX', keep_seconds)
end

-- Return number, line, end and ids of a sender's last lease.
local function last_lease(sender)
  local kept = call('GET', key('lease:' .. sender)) or '-1 i 0 '
  local number, line, ends_at, ids = string.match(kept, '^(%S+) (%S+) (%S+) (.*)$')
  return tonumber(number), line, tonumber(ends_at), ids
end

-- Whether an entry is still as whoever names the end of its lease knew it; with '' nobody leases it.
-- A packet may come late, or its answer not at all: what was leased since is not theirs.
local function is_held_by(id, line, ends_at)
  local is_leased = call('ZSCORE', key(line .. ':since'), id)
  if ends_at == '' then return not is_leased end
  return is_leased and tonumber(call('ZSCORE', key(line .. ':until'), id)) == tonumber(ends_at)
end

-- Give back what a lease took of which its sender never heard, and let it take nothing later on.
function operations.take_back(sender, number, keep_seconds)
  local last, line, ends_at, ids = last_lease(sender)
  number = tonumber(number)
  if last > number then return 0 end
  begin_though_full()
  if last == number then
    for id in string.gmatch(ids, '%S+') do
      local entry = find(id)
      if entry and is_held_by(id, line, ends_at) then
        let_go(id, entry)
        set_ready(line, id)
      end
    end
  end
  note_lease(sender, text(number), line, '0', {}, keep_seconds)
  return 0
end

-- Return the lease's end, which names it, and what it took.
function operations.lease(
  line, now, wall, max_messages, max_bytes, seconds, sender, number, keep_seconds)
  if last_lease(sender) >= tonumber(number) then return {'', {}} end  -- it was taken back
  now = shared_time(now, wall)
  end_holds(line, now)
  local peek, keep_rest = offer(line, max_messages)
  local barrier = barrier_of(line)
  local leased, ids, ends, starts = {}, {}, {}, {}
  local limit = {messages = tonumber(max_messages), bytes = tonumber(max_bytes)}
  -- A few microseconds early, so that no two leases of one moment have the same end.
  local early = 1 + size('leases') % LEASES
  local ends_at = string.format('%.17g', now + seconds - early / 1e6)
  local starts_at = string.format('%.17g', now - seconds)
  local evicted, stopped = {}, {}
  local is_repeatable = nil  -- whether all of the lease is
  while #stopped < ROUND do
    local number, payload, take = peek()
    if not number or (barrier and number > barrier) then break end
    local id = text(number)
    local entry = find(id)
    payload = payload or entry and payload_of(id, entry)
    if not payload or not entry then
      take()
      evicted[#evicted + 1] = id
    elseif has('stopping') and is_stopped(entry, 'inf') then
      take()
      stopped[#stopped + 1] = id
    else
      local overdue = has('overdue') and tonumber(call('HGET', key('overdue'), id) or 0) or 0
      local is_alone = overdue >= ALONE_AFTER
      if #leased == 0 then
        is_repeatable = entry.is_repeatable
        if not is_repeatable then limit.messages = math.min(limit.messages, MAX_UNREPEATABLE) end
      end
      limit.messages, limit.bytes = limit.messages - entry.messages, limit.bytes - entry.bytes
      local is_too_much = limit.messages < 0 or limit.bytes < 0 or is_alone
      if #leased > 0 and (is_too_much or entry.is_repeatable ~= is_repeatable) then break end
      take()
      leased[#leased + 1] = {
        number, entry.head, payload,
        has('attempts') and tonumber(call('HGET', key('attempts'), id) or 0) or 0, overdue}
      ids[#ids + 1] = id
      ends[#ends + 1], ends[#ends + 2] = ends_at, id
      starts[#starts + 1], starts[#starts + 2] = starts_at, id
      add_held(entry, 1)
      add_size('leased', entry.messages)
      if is_alone then break end
    end
  end
  keep_rest()
  call_all('ZADD', line .. ':until', ends)
  call_all('ZADD', line .. ':since', starts)
  if #ids > 0 then
    add_size('leases', 1)
    note_lease(sender, number, line, ends_at, ids, keep_seconds)
  end
  count('dropped:stopped', remove(stopped))
  count('dropped:evicted', remove(evicted))
  if #evicted > 0 then clear({[line] = evicted}) end
  return {ends_at, leased}
end

function operations.settle(reason, ids)
  local removed = remove(ids)
  count(reason, removed)
  return removed
end

-- Ids, each with the end of its lease.
function operations.release(not_before, wall, items)
  not_before = shared_time(not_before, wall)
  for place = 1, #items, 2 do
    local id, ends_at = items[place], items[place + 1]
    local entry = find(id)
    if entry and is_held_by(id, entry.line, ends_at) and not call('ZSCORE', key('aside'), id) then
      read_until(entry.line, tonumber(id))
      let_go(id, entry)
      call('HINCRBY', key('attempts'), id, 1)
      call('HDEL', key('overdue'), id)
      call('ZREM', key(entry.line .. ':ready'), id)
      call('ZADD', key(entry.line .. ':until'), not_before, id)
      add_held(entry, 1)
    end
  end
  return 0
end

function operations.split(id, ends_at)
  local entry = find(id)
  local payload = entry and is_held_by(id, entry.line, ends_at) and payload_of(id, entry)
  if not payload or entry.messages < 2 then return 0 end
  begin_though_full()
  read_until(entry.line, tonumber(id))
  local messages, bytes = messages_of(payload)
  local attempts = call('HGET', key('attempts'), id)
  local gone = {}
  local was_aside = displace(id, entry, gone)
  clear(gone)
  local middle = math.floor(#messages / 2)
  for _, part in ipairs({{1, middle}, {middle + 1, #messages}}) do
    local half_bytes = 0
    for place = part[1], part[2] do half_bytes = half_bytes + bytes[place] end
    local half = parse(render(entry, part[2] - part[1] + 1, half_bytes))
    local half_id = text(tonumber(id) + part[1] - 1)
    call('HSET', key('heads'), half_id, half.head)
    call('HSET', key('moved'), half_id, table.concat(messages, '', part[1], part[2]))
    if attempts then call('HSET', key('attempts'), half_id, attempts) end
    if was_aside then
      call('ZADD', key('aside'), half_id, half_id)
      add_size('aside', half.messages)
    else
      call('ZADD', key(entry.line .. ':moved'), half_id, half_id)
      set_ready(entry.line, half_id)
      add_size('messages:' .. entry.line, half.messages)
      add_size('bytes:' .. entry.line, half.bytes)
    end
    index(half_id, half)
  end
  return 0
end

function operations.bury(id, now, wall, most, most_bytes, refusals)
  now = shared_time(now, wall)
  local entry = find(id)
  local payload = entry and payload_of(id, entry)
  if not payload then return 0 end
  begin_though_full()
  local messages, bytes = messages_of(payload)
  if call('XLEN', key('dead')) == 0 then  -- perhaps evicted
    add_size('letter_bytes', -size('letter_bytes'))
  end
  for place = 1, #refusals, 3 do
    local number, reason, reply = refusals[place] + 1, refusals[place + 1], refusals[place + 2]
    add_size('letters', 1)
    add_size('letter_bytes', bytes[number])
    local letter = text(size('letters'))
    call('XADD', key('dead'), stream_id(letter), 'head', render(entry, 1, bytes[number]),
      'message', messages[number], 'reason', reason, 'reply', reply, 'at', now)
    each_key(entry, function(name) call('SADD', key('dead:of:' .. name), letter) end)
    count('buried:' .. reason, 1)
  end
  count('delivered:', remove({id}) - #refusals / 3)
  give_up_letters(most, most_bytes, #refusals / 3)
  return 1
end

-- Remove one round of what waits under a key. Return how many messages, and where the next goes on.
local function forget_round(name, cursor, at, now)
  local stopped, seen = {}, 0
  repeat
    local found = call('SSCAN', key('of:' .. name), cursor, 'COUNT', ROUND)
    cursor = found[1]
    for _, id in ipairs(found[2]) do
      local entry = find(id)
      if not entry then call('SREM', key('of:' .. name), id) end  -- evicted
      if entry and is_ended(entry, at, now) then stopped[#stopped + 1] = id end
    end
    seen = seen + #found[2]
  until cursor == '0' or seen >= ROUND
  return remove(stopped), cursor
end

-- Remove the letters under a key that a stop ends, of those that were buried after that time.
local function forget_letters(name, at, now, buried_after)
  for _, id in ipairs(call('SMEMBERS', key('dead:of:' .. name))) do
    local letter = find_letter(id)
    if letter and tonumber(letter[2][10]) > buried_after
      and is_ended(parse(letter[2][2]), at, now) then remove_letter(letter) end
  end
end

local function give_up_marks(most)
  local gone = call('ZPOPMIN', key('marks'), math.max(0, call('ZCARD', key('marks')) - most))
  local last = tonumber(call('GET', key('stopped_until')) or '-inf')
  -- Only ever later: an old stop may come late.
  if #gone > 0 and tonumber(gone[#gone]) > last then
    call('SET', key('stopped_until'), gone[#gone])
  end
  count('marks_lost:', #gone / 2)
end

-- Keys, each with where to go on, '0' at first. Return how many messages went, and what is left.
function operations.forget(reason, at, now, most, items)
  begin_though_full()
  local removed, rest = 0, {}
  for place = 1, #items, 2 do call('ZADD', key('marks'), 'GT', at, items[place]) end
  for place = 1, #items, 2 do
    local name, cursor, is_done = items[place], items[place + 1], false
    if removed < ROUND then
      local messages
      messages, cursor = forget_round(name, cursor, at, now)
      removed, is_done = removed + messages, cursor == '0'
    end
    if is_done then
      call('ZREM', key('stopping'), name)
    else
      call('ZADD', key('stopping'), 'GT', at, name)
      rest[#rest + 1], rest[#rest + 2] = name, cursor
    end
    -- Of a stop what was buried later: it would be kept for longer than the mark.
    forget_letters(name, at, now, reason == 'dropped:erased' and -math.huge or tonumber(at))
  end
  give_up_marks(most)
  count(reason, removed)
  return {removed, unpack(rest)}
end

function operations.dead(after, limit)
  return call('XRANGE', key('dead'), '(' .. stream_id(after), '+', 'COUNT', limit)
end

function operations.replay(now, wall, ids)
  local replayed, at = 0, shared_time(now, wall)
  check_types()
  for _, id in ipairs(ids) do
    local letter = find_letter(id)
    local entry = letter and parse(letter[2][2])
    if letter and not is_stopped(entry, now) then
      remove_letter(letter)
      add(put_at(entry.head, at), letter[2][4])
      replayed = replayed + 1
    end
  end
  count('replayed:', replayed)
  return replayed
end

function operations.purge(ids)
  local removed = 0
  for _, id in ipairs(ids) do
    local letter = find_letter(id)
    if letter then removed = removed + remove_letter(letter) end
  end
  return removed
end

local function next_of_set(name, from)
  return tonumber(call('ZRANGEBYSCORE', key(name), text(from), '+inf', 'LIMIT', 0, 1)[1])
end

local function next_of(line, from)
  if line == 'aside' then return next_of_set(line, from) end
  return least(first_of_stream(line, text(from)), next_of_set(line .. ':moved', from))
end

-- What a clock that was ahead put keeps nothing behind it from expiring.
local function find_old(oldest_kept, now)
  local old = {}
  for _, line in ipairs({'aside', unpack(LINES)}) do
    local id = next_of(line, 0)
    for _ = 1, ROUND do
      local entry = id and find(text(id))
      if not id or entry and entry.put_at >= oldest_kept and entry.put_at <= now then break end
      if entry and entry.put_at < oldest_kept then old[#old + 1] = text(id) end
      id = next_of(line, id + 1)
    end
  end
  return old
end

-- Return how many messages went, and whether there may be more.
function operations.expire(now, wall, max_age)
  now = tonumber(shared_time(now, wall))
  local oldest_kept = now - max_age
  correct_clock(string.format('%.17g', now))
  local old, letters = find_old(oldest_kept, now), 0
  while letters < ROUND do
    local letter = call('XRANGE', key('dead'), '-', '+', 'COUNT', 1)[1]
    if not letter or tonumber(letter[2][10]) >= oldest_kept then break end
    remove_letter(letter)
    letters = letters + 1
  end
  local before = string.format('(%.17g', oldest_kept)
  local sources = call('ZRANGEBYSCORE', key('seen'), '-inf', before, 'LIMIT', 0, ROUND)
  call_all('HDEL', 'tickets', sources)
  call_all('ZREM', 'seen', sources)
  local has_more = #old > 0 or letters == ROUND or #sources == ROUND
  if not has_more then
    -- Behind the letters: no mark goes before a letter that it holds back.
    call('ZREMRANGEBYSCORE', key('marks'), '-inf', before)
    call('ZREMRANGEBYSCORE', key('stopping'), '-inf', before)
  end
  local removed = remove(old)
  count('dropped:too_old', removed)
  return {removed, has_more and 1 or 0}
end

-- What the server does when its memory is full; empty where it has no bound, or does not say.
function operations.policy()
  local text = redis.pcall('INFO', 'memory')
  if type(text) ~= 'string' or string.find(text, 'maxmemory:0\r') then return '' end
  return string.match(text, 'maxmemory_policy:([%w-]+)') or ''
end

function operations.tally(source, number, now, wall, items)
  if not take_ticket(source, number, shared_time(now, wall)) then return 0 end
  for place = 1, #items, 2 do count(items[place], tonumber(items[place + 1])) end
  return 0
end

function operations.horizon()
  return tonumber(call('HGET', key('sizes'), 'next') or math.floor(server_time() * 1e6))
end

local function first_of_all()
  local firsts = {first_of_set('aside')}
  for _, line in ipairs(LINES) do firsts[#firsts + 1] = first_of(line) end
  return firsts
end

function operations.is_past(horizon)
  for _, id in ipairs(first_of_all()) do
    if id < tonumber(horizon) then return 0 end
  end
  return 1
end

function operations.stats()
  local oldest = nil
  for _, id in ipairs(first_of_all()) do
    local entry = find(text(id))
    if entry and (not oldest or entry.put_at < oldest.put_at) then oldest = entry end
  end
  return {
    size('messages'), size('bytes'), oldest and string.format('%.17g', oldest.put_at) or '',
    call('XLEN', key('dead')), size('letter_bytes'), size('aside'), size('leased'), call('HGETALL', key('totals'))}
end

-- Its name, how many arguments it has, these, and a list of any length.
local arguments, list = {}, {}
for place = 3, 2 + ARGV[2] do arguments[#arguments + 1] = ARGV[place] end
for place = 3 + ARGV[2], #ARGV do list[#list + 1] = ARGV[place] end
arguments[#arguments + 1] = list
local result = operations[ARGV[1]](unpack(arguments))
commit()
return result
