-- The balancer's view of the workers, with the figures from their last health checks.

local workers = {}

-- Return why a worker is down, from its last health check.
local function trouble(stats)
  local found = stats.last_chk
  if found and found ~= "" and not found:find("^device=") then
    return found
  end
  return stats.check_desc or "not checked yet"
end

local TEXTS = { device = true, version = true, model = true }

-- Parse a worker's figures: `name=value name=value …`, see app/api/worker_stats.py.
local function figures(text)
  local found = {}
  for name, value in (text or ""):gmatch("([%w_]+)=(%S+)") do
    found[name] = not TEXTS[name] and tonumber(value) or value
  end
  return found
end

-- Return all workers, ordered by number. The backend `unlimited` lists only workers; `workers` also
-- has the server `waiting`. `since_s` is how long the worker has been up, or down.
function workers.all()
  local found = {}
  for name in pairs(core.backends["unlimited"].servers) do
    local server = core.backends["workers"].servers[name]
    local stats = server:get_stats()
    local worker = { name = name, used = tonumber(stats.scur) or 0,
                     slots = tonumber(stats.slim) or 0,
                     since_s = tonumber(stats.lastchg) or 0, figures = {} }
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

-- Return healthy workers, requests in progress, and free and total slots of healthy workers.
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

-- Return requests waiting for a slot, and those in the deferred queue.
function workers.queues()
  local function waiting(backend)
    return tonumber(core.backends[backend]:get_stats().qcur) or 0
  end
  return { queue = waiting("workers"), deferred = waiting("deferred_queue") }
end

-- Return the gateways of live transcription, the sessions through this balancer, the audio that waits
-- for the pool, and the delays of the slowest gateway's words, see app/live/metrics.py; nil without
-- gateways.
function workers.live()
  local backend = core.backends["live"]
  if not backend then return nil end
  local live = { gateways = 0, gateways_up = 0, sessions = 0, behind_s = 0 }
  for _, server in pairs(backend.servers) do
    local stats = server:get_stats()
    live.gateways, live.sessions = live.gateways + 1, live.sessions + (tonumber(stats.scur) or 0)
    if stats.status:find("^UP") then
      local found = figures(stats.last_chk)
      live.gateways_up = live.gateways_up + 1
      live.behind_s = live.behind_s + (found.behind_s or 0)
      if (found.p95_ms or 0) > (live.p95_ms or -1) then
        live.p50_ms, live.p95_ms = found.p50_ms, found.p95_ms
      end
    end
  end
  return live
end

return workers
