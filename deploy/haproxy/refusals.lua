-- Count refused requests by reason and tier, and by key for the limits of keys.

local REASONS = { "busy", "queue_full", "deadline", "no_worker", "worker_failed", "worker_timeout",
                  "draining", "not_ready", "no_room", "no_decoder", "rate_limit", "key_rate",
                  "key_concurrency" }
local TIERS = { "realtime", "deferred" }
local OF_KEYS = { "key_rate", "key_concurrency" }

local refusals = {}

-- Since this process started; a reload resets them, like all HAProxy counters.
local requests, by_key = {}, {}
for _, reason in ipairs(REASONS) do
  requests[reason] = { realtime = 0, deferred = 0 }
end

-- Count one refusal; `key` is the name of the sender's key, or nil.
function refusals.count(reason, tier, key)
  local counts = requests[reason]
  if counts then counts[tier] = counts[tier] + 1 end
  if key then
    by_key[key] = by_key[key] or { key_rate = 0, key_concurrency = 0 }
    if by_key[key][reason] then by_key[key][reason] = by_key[key][reason] + 1 end
  end
end

-- Return the count of every reason and tier in a fixed order, zeros included.
function refusals.all()
  local found = {}
  for _, reason in ipairs(REASONS) do
    for _, tier in ipairs(TIERS) do
      found[#found + 1] = { reason = reason, tier = tier, requests = requests[reason][tier] }
    end
  end
  return found
end

-- Return the refusals by limit of each key name.
function refusals.of_keys()
  local found = {}
  for key, counts in pairs(by_key) do
    for _, reason in ipairs(OF_KEYS) do
      found[#found + 1] = { key = key, reason = reason, requests = counts[reason] }
    end
  end
  return found
end

return refusals
