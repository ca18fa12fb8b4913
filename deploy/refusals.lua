-- Requests that were told to come again: how many, why, and the seconds of audio they carried.

local limits = require("limits")

local REASONS = { "busy", "queue_full", "deadline", "no_worker", "worker_failed", "worker_timeout",
                  "draining", "not_ready", "no_room", "no_decoder", "rate_limit", "key_rate",
                  "key_concurrency", "key_audio" }
local TIERS = { "realtime", "deferred" }

local refusals = {}

-- Since this process started; a reload starts anew, as with all of HAProxy's counters.
local requests, seconds = {}, {}
for _, reason in ipairs(REASONS) do
  requests[reason], seconds[reason] = {}, {}
  for _, tier in ipairs(TIERS) do
    requests[reason][tier], seconds[reason][tier] = 0, 0
  end
end

-- The length of a WAV file from a request's first bytes, in seconds; 0 where that is not known.
-- `bytes` is the size of the whole body: streamed files say a wrong length of their own.
local function wav_seconds(head, bytes)
  local riff = head:find("RIFF....WAVE")
  local fmt = riff and head:find("fmt ", riff, true)
  local data = fmt and head:find("data", fmt + 24, true)
  if not data or data + 7 > #head then
    return 0
  end
  local bytes_per_s = string.unpack("<I4", head, fmt + 16)
  local length = string.unpack("<I4", head, data + 4)
  local rest = bytes - (data + 7)
  if bytes_per_s == 0 or rest < 0 then
    return 0
  end
  return math.min(length == 0 and rest or length, rest) / bytes_per_s
end

-- Counts the refusal of this request; the answer is its seconds of audio, for the log.
core.register_fetches("count_refusal", function(txn)
  local reason, tier = txn:get_var("txn.refused"), txn:get_var("txn.tier") or "realtime"
  local audio_s = wav_seconds(txn:get_var("txn.head") or "", txn:get_var("txn.bytes") or 0)
  local counts = requests[reason]
  if counts then
    counts[tier] = counts[tier] + 1
    seconds[reason][tier] = seconds[reason][tier] + audio_s
  end
  limits.count(txn:get_var("txn.sender") or "", reason)
  return string.format("%.2f", audio_s)
end)

-- Every reason and tier with its counts, in one order; also those that are 0.
function refusals.all()
  local found = {}
  for _, reason in ipairs(REASONS) do
    for _, tier in ipairs(TIERS) do
      found[#found + 1] = { reason = reason, tier = tier, requests = requests[reason][tier],
                            audio_s = seconds[reason][tier] }
    end
  end
  return found
end

return refusals
