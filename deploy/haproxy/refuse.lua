-- Return the balancer's own errors to requests that may have a body.

local errors = require("errors")

local PATIENCE_S = tonumber(os.getenv("BUSY_RETRY_AFTER_S") or "") or 1
-- Closing a connection while its client still sends resets it and loses the response. So the rest of
-- the body is read and discarded, up to this time and number of requests.
local DISCARD_S, AT_ONCE, PIECE_BYTES = 10, 64, 4096

local discarding = 0

local function discard(applet)
  local ends = core.now().sec + DISCARD_S
  repeat
    local piece = applet:receive(PIECE_BYTES)
  until not piece or #piece == 0 or core.now().sec > ends
end

-- txn.refusal names the error; txn.again_s is Retry-After in seconds.
core.register_service("refuse", "http", function(applet)
  local error = errors[applet:get_var("txn.refusal")]
  applet:set_status(error.status)
  applet:add_header("content-type", "application/json")
  applet:add_header("content-length", #error.body)
  applet:add_header("x-error", error.code)
  if error.status == 401 then
    applet:add_header("www-authenticate", "Bearer")
  elseif error.status == 405 then
    applet:add_header("allow", applet:get_var("txn.allow") or "GET, HEAD")
  elseif error.status == 429 or error.status == 503 then
    applet:add_header("x-refused", applet:get_var("txn.refusal"))
    applet:add_header("retry-after", applet:get_var("txn.again_s") or PATIENCE_S)
  end
  applet:start_response()
  applet:send(error.body)
  if discarding < AT_ONCE then
    discarding = discarding + 1
    pcall(discard, applet)
    discarding = discarding - 1
  end
end)
