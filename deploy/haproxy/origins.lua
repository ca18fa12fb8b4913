-- Other sites whose pages may read the service's answers (CORS_ORIGINS); none out of the box.

local allowed = {}
for origin in (os.getenv("CORS_ORIGINS") or ""):gmatch("[^,%s]+") do
  allowed[origin] = true
end

-- The origin that sent this request, where it is one of them; else empty.
core.register_fetches("allowed_origin", function(txn)
  local origin = txn.f:req_fhdr("origin") or ""
  return allowed[origin] and origin or ""
end)
