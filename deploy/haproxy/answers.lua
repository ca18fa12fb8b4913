-- Count responses to transcription requests, and keep the latest faults.

local refusals = require("refusals")

local answers = {}

local KEPT = 20
-- Refusals under load are not faults: refusals.lua counts them by reason, and here they would
-- displace the faults.
local LOAD = { busy = true, queue_full = true, deadline = true, rate_limit = true,
               key_rate = true, key_concurrency = true }

-- Since this process started.
local counts = { answered = 0, refused = 0, failed = 0 }
local faults = {} -- newest first

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
  local kind = reason and "refused" or status < 400 and "answered" or "failed"
  counts[kind] = counts[kind] + 1
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

function answers.faults()
  return faults
end

return answers
