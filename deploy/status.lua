-- What the balancer knows that HAProxy has no figure of its own for: requests refused, by reason
-- and tier, with the seconds of audio they carried; and the plain text of /lb-status.

local REASONS = { "busy", "queue_full", "deadline", "no_worker", "worker_failed", "worker_timeout",
                  "draining", "not_ready", "no_room", "rate_limit" }
local TIERS = { "realtime", "deferred" }

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
  return string.format("%.2f", audio_s)
end)

local function answer(applet, content_type, lines)
  local body = table.concat(lines, "\n") .. "\n"
  applet:set_status(200)
  applet:add_header("content-type", content_type)
  applet:add_header("content-length", #body)
  applet:add_header("cache-control", "no-store")
  applet:start_response()
  applet:send(body)
end

-- Prometheus' text form.
core.register_service("refusals", "http", function(applet)
  local lines = {}
  local function family(name, help, counts)
    lines[#lines + 1] = "# HELP " .. name .. " " .. help
    lines[#lines + 1] = "# TYPE " .. name .. " counter"
    for _, reason in ipairs(REASONS) do
      for _, tier in ipairs(TIERS) do
        lines[#lines + 1] = string.format('%s{reason="%s",tier="%s"} %.15g', name, reason, tier,
                                          counts[reason][tier])
      end
    end
  end
  family("transcription_pool_refused_total", "Why were clients told to come again?", requests)
  family("transcription_pool_refused_audio_seconds_total",
         "How much audio did they carry (WAV only)?", seconds)
  answer(applet, "text/plain; version=0.0.4", lines)
end)

-- Why a worker takes no requests, as its last health check found.
local function trouble(stats)
  if stats.last_chk and stats.last_chk ~= "" then
    return stats.last_chk
  end
  return stats.check_desc or "not checked yet"
end

core.register_service("status", "http", function(applet)
  local backend = core.backends["workers"]
  local names, workers = {}, {}
  local up, inside, free = 0, 0, 0
  for name in pairs(backend.servers) do
    names[#names + 1] = name
  end
  table.sort(names, function(one, other)
    if #one ~= #other then return #one < #other end
    return one < other
  end)
  for _, name in ipairs(names) do
    local stats = backend.servers[name]:get_stats()
    local used, slots = tonumber(stats.scur) or 0, tonumber(stats.slim) or 0
    inside = inside + used
    if stats.status:find("^UP") or stats.status == "no check" then
      up, free = up + 1, free + math.max(0, slots - used)
      workers[#workers + 1] = string.format("%s: up, %d of %d slots", name, used, slots)
    elseif stats.status:find("^DOWN") then
      workers[#workers + 1] = string.format("%s: down. %s", name, trouble(stats))
    else
      workers[#workers + 1] = string.format("%s: %s, %d of %d slots", name, stats.status:lower(),
                                            used, slots)
    end
  end
  local lines = {
    "Load Balancer Status: Active",
    string.format("Workers: %d of %d up", up, #names),
    "Requests in progress: " .. inside,
    "Free slots: " .. free,
    "Queue: " .. (backend:get_stats().qcur or 0),
    "Deferred queue: " .. (core.backends["gate"]:get_stats().qcur or 0),
  }
  for _, line in ipairs(workers) do
    lines[#lines + 1] = line
  end
  local all, audio_s, refused = 0, 0, {}
  for _, reason in ipairs(REASONS) do
    for _, tier in ipairs(TIERS) do
      local count = requests[reason][tier]
      if count > 0 then
        all, audio_s = all + count, audio_s + seconds[reason][tier]
        refused[#refused + 1] = string.format("  %s, %s: %d", reason, tier, count)
      end
    end
  end
  lines[#lines + 1] = string.format("Refused: %d, with %.1f s of audio", all, audio_s)
  for _, line in ipairs(refused) do
    lines[#lines + 1] = line
  end
  answer(applet, "text/plain; charset=utf-8", lines)
end)
