-- Count responses to transcription requests, measure how long they take, and keep the latest faults.

local refusals = require("refusals")

local answers = {}

local KEPT = 20
local CLIENT_LEFT = 499
-- Refusals under load are not faults: refusals.lua counts them by reason, and here they would
-- displace the faults.
local LOAD = { busy = true, queue_full = true, deadline = true, rate_limit = true,
               key_rate = true, key_concurrency = true }

-- Since this process started.
local counts = { answered = 0, refused = 0, failed = 0 }
local faults = {} -- newest first

-- How long the latest answers took, by tier; the oldest is overwritten.
local MOST, FRESH_S = 1000, 300
local took = { realtime = { next = 1 }, deferred = { next = 1 } }

local function measure(tier, ms)
  local ring = took[tier]
  ring[ring.next] = { time_s = core.now().sec, ms = math.max(0, ms) }
  ring.next = ring.next % MOST + 1
end

local function remember(fault)
  local newest = faults[1]
  if newest and newest.status == fault.status and newest.code == fault.code
     and newest.tier == fault.tier and newest.worker == fault.worker then
    fault.times = newest.times + 1
    faults[1] = fault
    return
  end
  table.insert(faults, 1, fault)
  faults[KEPT + 1] = nil
end

-- Count the outcome of this request; the return value is unused.
core.register_fetches("count_answer", function(txn)
  local status, reason = tonumber(txn.sf:status()), txn:get_var("txn.refused")
  if status == CLIENT_LEFT then return "cancelled" end
  local kind = reason and "refused" or status < 400 and "answered" or "failed"
  counts[kind] = counts[kind] + 1
  if kind == "answered" then
    measure(txn:get_var("txn.tier") or "realtime", txn:get_var("txn.took_ms"))
  end
  if reason then
    refusals.count(reason, txn:get_var("txn.tier") or "realtime", txn:get_var("txn.key"))
  end
  if kind ~= "answered" and not LOAD[reason] then
    remember({
      time_s = core.now().sec, status = status, code = reason or txn:get_var("txn.error") or "",
      tier = txn:get_var("txn.tier") or "realtime", worker = txn:get_var("txn.worker") or "",
      id = txn:get_var("txn.id") or "", times = 1,
    })
  end
  return kind
end)

function answers.counts()
  return counts
end

-- Return a tier's answers of the last five minutes: how many, and the times in ms within which half
-- and 95 % of them began. A stream begins with its first event.
function answers.latency(tier)
  local fresh, since_s = {}, core.now().sec - FRESH_S
  for _, one in ipairs(took[tier]) do
    if one.time_s >= since_s then fresh[#fresh + 1] = one.ms end
  end
  table.sort(fresh)
  local function within(share)
    return fresh[math.ceil(share * #fresh)]
  end
  return { requests = #fresh, p50_ms = within(0.5), p95_ms = within(0.95) }
end

function answers.faults()
  return faults
end

return answers
