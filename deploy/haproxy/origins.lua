-- Origins whose pages may read responses (CORS_ORIGINS); none by default.

local allowed = {}
for origin in (os.getenv("CORS_ORIGINS") or ""):gmatch("[^,%s]+") do
  allowed[origin] = true
end

-- Return the request's origin if it is allowed, else an empty string.
core.register_fetches("allowed_origin", function(txn)
  local origin = txn.f:req_fhdr("origin") or ""
  return allowed[origin] and origin or ""
end)
