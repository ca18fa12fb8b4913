-- What each key may, and how much audio it had: the balancer's part in the limits of keys.
--
-- A worker says with each answer whose key it was and what that key may (app/allowance.py). From
-- then on a request that is one too many is refused here, before it takes a place in the queue.
-- Requests a minute and at once are HAProxy's own counts; audio is counted here.

local HOUR_S = 3600
local PATIENCE_S = tonumber(os.getenv("BUSY_RETRY_AFTER_S") or "") or 1
local FRESH_S = 2  -- for as long what a worker said of a key is still so
local MESSAGES = {
  key_rate = "This key has sent its requests of this minute. Send the request again later.",
  key_concurrency = "This key has all its requests in progress. Send the request again later.",
  key_audio = "This key has had its minutes of audio of this hour. Send the request again later.",
}

-- By the hash of the key that was sent; only keys that a worker found valid, and that have a limit.
local limited_keys = {}

local limits = {}

-- Seconds of audio within an hour. The hour before goes by degrees, as in HAProxy's own rates.
local function spent_s(key, now)
  local hours = math.floor((now - key.began) / HOUR_S)
  if hours > 0 then
    key.before = hours == 1 and key.current or 0
    key.current, key.began = 0, key.began + hours * HOUR_S
  end
  return key.current + key.before * (1 - (now - key.began) / HOUR_S)
end

-- Seconds until less than its audio is spent; `spent_s` has been called.
local function room_in_s(key, now)
  local gone = now - key.began
  if key.current >= key.audio_s then
    return HOUR_S - gone + HOUR_S * (1 - key.audio_s / key.current)
  end
  return HOUR_S * (1 - (key.audio_s - key.current) / key.before) - gone
end

-- The limit that one more request would break, and the seconds after which there is room.
local function broken(key, requests, inside, now)
  if key.requests > 0 and requests >= key.requests then
    return "key_rate", 60 / key.requests
  end
  if key.inside > 0 and inside > key.inside then
    return "key_concurrency", PATIENCE_S
  end
  if key.audio_s > 0 and spent_s(key, now) >= key.audio_s then
    return "key_audio", room_in_s(key, now)
  end
end

-- Says why this request is one too many: txn.refused, and what the answer says. A worker may know of
-- other limits meanwhile, or that the key is valid no more: every few seconds one request goes on to
-- ask it (txn.asks), with the counts, and the worker refuses it where the limits are the same.
core.register_action("limit_key", { "http-req" }, function(txn)
  local key = limited_keys[txn:get_var("txn.sender")]
  if not key then
    txn:set_var("txn.spent", "0 0")
    return
  end
  txn:set_var("txn.key", key.name)
  local now = os.time()
  local reason, seconds = broken(key, txn.f:sc_gpc0_rate(0), txn.f:sc_conn_cur(0), now)
  seconds = math.max(1, math.ceil(seconds or 0))
  if reason and now - key.heard < FRESH_S then
    txn:set_var("txn.refused", reason)
    txn:set_var("txn.message", MESSAGES[reason])
    txn:set_var("txn.again_s", seconds)
    return
  elseif reason then
    key.heard = now
    txn:set_var("txn.asks", "true")
  end
  local room_s = reason == "key_audio" and seconds or 0
  txn:set_var("txn.spent", string.format("%d %d", math.floor(spent_s(key, now)), room_s))
end)

-- Remembers what a worker says of a key; the answer is the key's name, for the log.
core.register_fetches("learn_key", function(txn)
  local sender, may = txn:get_var("txn.sender"), txn:get_var("txn.key_may") or ""
  local name, requests, inside, audio_s = may:match("^(%S+) (%d+) (%d+) (%d+)$")
  if not sender or not name then
    return "-"
  end
  requests, inside, audio_s = tonumber(requests), tonumber(inside), tonumber(audio_s)
  if requests + inside + audio_s == 0 then
    limited_keys[sender] = nil
    return name
  end
  local now = os.time()
  local key = limited_keys[sender] or { began = now, current = 0, before = 0, refused = {} }
  key.name, key.requests, key.inside, key.audio_s = name, requests, inside, audio_s
  key.heard = now
  spent_s(key, now)
  key.current = key.current + (tonumber(txn:get_var("txn.key_audio")) or 0)
  limited_keys[sender] = key
  return name
end)

-- A key that is valid no more is as unknown as one that never was.
core.register_fetches("forget_key", function(txn)
  local sender = txn:get_var("txn.sender")
  if sender then
    limited_keys[sender] = nil
  end
  return "-"
end)

-- Counts a request of this key that was one too many; other reasons are not the key's.
function limits.count(sender, reason)
  local key = limited_keys[sender]
  if key and MESSAGES[reason] then
    key.refused[reason] = (key.refused[reason] or 0) + 1
  end
end

-- Requests that were one too many, by the key's name and the limit; a name may have two keys.
function limits.refused()
  local by_name, found = {}, {}
  for _, key in pairs(limited_keys) do
    by_name[key.name] = by_name[key.name] or {}
    for reason in pairs(MESSAGES) do
      by_name[key.name][reason] = (by_name[key.name][reason] or 0) + (key.refused[reason] or 0)
    end
  end
  for name, counts in pairs(by_name) do
    for reason, requests in pairs(counts) do
      found[#found + 1] = { key = name, reason = reason, requests = requests }
    end
  end
  return found
end

return limits
