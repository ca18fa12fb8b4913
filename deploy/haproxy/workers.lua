-- The workers as the balancer sees them, with the figures that each one's last health check brought.

local workers = {}

-- Why a worker takes no requests, as its last health check found.
local function trouble(stats)
  local found = stats.last_chk
  if found and found ~= "" and not found:find("^device=") then
    return found
  end
  return stats.check_desc or "not checked yet"
end

-- What a worker says of itself: `name=value name=value …`, see app/api/worker_stats.py.
local function figures(text)
  local found = {}
  for name, value in (text or ""):gmatch("([%w_]+)=([%w.]+)") do
    found[name] = tonumber(value) or value
  end
  return found
end

-- All of them, in the order of their names' numbers. The backend of what needs no slot has just the
-- workers, the other one a place to wait too.
function workers.all()
  local found = {}
  for name in pairs(core.backends["unlimited"].servers) do
    local server = core.backends["workers"].servers[name]
    local stats = server:get_stats()
    local worker = { name = name, used = tonumber(stats.scur) or 0,
                     slots = tonumber(stats.slim) or 0, figures = {} }
    if stats.status:find("^UP") or stats.status == "no check" then
      worker.state, worker.figures = "up", figures(stats.last_chk)
    elseif stats.status:find("^DOWN") then
      worker.state, worker.reason = "down", trouble(stats)
    else
      worker.state = stats.status:lower()
    end
    found[#found + 1] = worker
  end
  table.sort(found, function(one, other)
    if #one.name ~= #other.name then return #one.name < #other.name end
    return one.name < other.name
  end)
  return found
end

-- How many are up, requests inside, free slots and slots of those that are up.
function workers.totals(all)
  local totals = { up = 0, inside = 0, free = 0, slots = 0 }
  for _, worker in ipairs(all) do
    totals.inside = totals.inside + worker.used
    if worker.state == "up" then
      totals.up, totals.slots = totals.up + 1, totals.slots + worker.slots
      totals.free = totals.free + math.max(0, worker.slots - worker.used)
    end
  end
  return totals
end

-- Requests that wait for a slot, and deferred ones that wait for their turn to do so.
function workers.queues()
  local function waiting(backend)
    return tonumber(core.backends[backend]:get_stats().qcur) or 0
  end
  return { queue = waiting("workers"), deferred = waiting("deferred_queue") }
end

return workers
