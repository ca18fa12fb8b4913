-- While no worker is up, hold requests instead of refusing them.

local STEP_MS = 100

local function now_ms()
  local now = core.now()
  return now.sec * 1000 + now.usec // 1000
end

-- Return when a worker is up, or at txn.until (ms since 1970).
core.register_action("await_worker", { "http-req" }, function(txn)
  local ends = txn:get_var("txn.until") or 0
  while txn.f:nbsrv("unlimited") == 0 and now_ms() < ends do
    core.msleep(STEP_MS)
  end
end)
