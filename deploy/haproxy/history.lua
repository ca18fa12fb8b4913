-- Sample cumulative totals of the last minutes; rates are differences between samples.

local answers = require("answers")
local workers = require("workers")

local history = {}

local STEP_S, KEPT = 5, 60 -- five minutes
local COUNTERS = { "audio", "took", "busy" }

local samples = {}    -- oldest first
local done = {}       -- by worker: totals since this process started
local last = {}       -- by worker: latest figures
local peak = { used = 0, waiting = 0 }

-- Add a worker's progress. Counters of a restarted worker begin at 0; its totals are kept here.
local function add_up(worker)
  local sums = done[worker.name] or { audio = 0, took = 0, busy = 0 }
  local before = last[worker.name] or worker.figures
  for _, name in ipairs(COUNTERS) do
    local now, was = worker.figures[name] or 0, before[name] or 0
    sums[name] = sums[name] + (now >= was and now - was or now)
  end
  done[worker.name], last[worker.name] = sums, worker.figures
end

local function look()
  local all, queues = workers.all(), workers.queues()
  for _, worker in ipairs(all) do
    if worker.figures.device then add_up(worker) end
  end
  peak.used = math.max(peak.used, workers.totals(all).inside)
  peak.waiting = math.max(peak.waiting, queues.queue + queues.deferred)
end

-- The totals now, and the peaks of used slots and waiting requests since the last sample.
local function sample()
  local counts, sums = answers.counts(), { audio = 0, took = 0, busy = 0 }
  for _, each in pairs(done) do
    for _, name in ipairs(COUNTERS) do sums[name] = sums[name] + each[name] end
  end
  return { time_s = core.now().sec, answered = counts.answered, refused = counts.refused,
           failed = counts.failed, audio_s = sums.audio, took_s = sums.took, busy_s = sums.busy,
           used = peak.used, waiting = peak.waiting }
end

core.register_task(function()
  while true do
    for _ = 1, STEP_S do
      look()
      core.msleep(1000)
    end
    samples[#samples + 1] = sample()
    if #samples > KEPT then table.remove(samples, 1) end
    peak = { used = 0, waiting = 0 }
  end
end)

-- Return the samples, oldest first, ending with one taken now.
function history.all()
  local found = table.move(samples, 1, #samples, 1, {})
  found[#found + 1] = sample()
  return found
end

return history
