-- Report the state of the balancer and its workers: as text (/lb-status), as JSON for the page
-- /status (/status/figures), and as Prometheus metrics that HAProxy does not export itself.

local answers = require("answers")
local history = require("history")
local json = require("json")
local refusals = require("refusals")
local workers = require("workers")

local function answer(applet, content_type, body)
  applet:set_status(200)
  applet:add_header("content-type", content_type)
  applet:add_header("content-length", #body)
  applet:add_header("cache-control", "no-store")
  applet:start_response()
  applet:send(body)
end

-- Refusals in Prometheus' text format.
core.register_service("refusals", "http", function(applet)
  local lines = {
    "# HELP transcription_pool_refused_total Requests refused, by reason and tier.",
    "# TYPE transcription_pool_refused_total counter",
  }
  for _, one in ipairs(refusals.all()) do
    lines[#lines + 1] = string.format('transcription_pool_refused_total{reason="%s",tier="%s"} %d',
                                      one.reason, one.tier, one.requests)
  end
  lines[#lines + 1] = "# HELP transcription_pool_key_refused_total Requests refused by a key's limits."
  lines[#lines + 1] = "# TYPE transcription_pool_key_refused_total counter"
  for _, one in ipairs(refusals.of_keys()) do
    lines[#lines + 1] = string.format('transcription_pool_key_refused_total{key="%s",reason="%s"} %d',
                                      one.key, one.reason, one.requests)
  end
  answer(applet, "text/plain; version=0.0.4", table.concat(lines, "\n") .. "\n")
end)

-- Describe one worker in a line of text.
local function in_words(worker)
  if worker.reason then
    return string.format("%s: %s. %s", worker.name, worker.state, worker.reason)
  end
  return string.format("%s: %s, %d of %d slots", worker.name, worker.state, worker.used,
                       worker.slots)
end

core.register_service("status", "http", function(applet)
  local all, queues = workers.all(), workers.queues()
  local totals = workers.totals(all)
  local lines = {
    "Load Balancer Status: Active",
    string.format("Workers: %d of %d up", totals.up, #all),
    "Requests in progress: " .. totals.inside,
    "Free slots: " .. totals.free,
    "Queue: " .. queues.queue,
    "Deferred queue: " .. queues.deferred,
  }
  local live = workers.live()
  if live then lines[#lines + 1] = "Live sessions: " .. live.sessions end
  for _, worker in ipairs(all) do
    lines[#lines + 1] = in_words(worker)
  end
  local requests, refused = 0, {}
  for _, one in ipairs(refusals.all()) do
    if one.requests > 0 then
      requests = requests + one.requests
      refused[#refused + 1] = string.format("  %s, %s: %d", one.reason, one.tier, one.requests)
    end
  end
  lines[#lines + 1] = "Refused: " .. requests
  table.move(refused, 1, #refused, #lines + 1, lines)
  answer(applet, "text/plain; charset=utf-8", table.concat(lines, "\n") .. "\n")
end)

core.register_service("figures", "http", function(applet)
  local all = workers.all()
  local refused = {}
  for _, one in ipairs(refusals.all()) do
    if one.requests > 0 then refused[#refused + 1] = one end
  end
  answer(applet, "application/json", json.encode({
    time_s = core.now().sec, workers = all, totals = workers.totals(all),
    queues = workers.queues(), refused = refused, faults = answers.faults(),
    history = history.all(), uptime_s = core.get_info()["Uptime_sec"],
    latency = { realtime = answers.latency("realtime"), deferred = answers.latency("deferred") },
    live = workers.live(),
  }))
end)
