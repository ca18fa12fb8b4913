-- Answers that the balancer gives by itself to requests that may have a body.

local errors = require("errors")

local PATIENCE_S = tonumber(os.getenv("BUSY_RETRY_AFTER_S") or "") or 1
-- A connection that ends while its client still sends is reset, and the answer is lost on the way.
-- So what comes after the answer is read and thrown away, for so long, and for so many at a time.
local DISCARD_S, AT_ONCE, PIECE_BYTES = 10, 64, 4096

local discarding = 0

local function discard(applet)
  local ends = core.now().sec + DISCARD_S
  repeat
    local piece = applet:receive(PIECE_BYTES)
  until not piece or #piece == 0 or core.now().sec > ends
end

-- Which error it is stands in txn.refusal; in txn.again_s after how many seconds to come again.
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
