-- Sync the balancer's map of keys with its file (KEYS_MAP), without a reload. Another process writes
-- the file, one line per key: `HASH NAME REQUESTS_PER_MINUTE CONCURRENT_REQUESTS`.

local path = os.getenv("KEYS_MAP") or ""

local function read()
  local file = io.open(path)
  if not file then return nil end
  local text = file:read("a")
  file:close()
  return text
end

local function parsed(text)
  local found = {}
  for hash, grant in text:gmatch("(%x+) ([^\n]+)") do found[hash] = grant end
  return found
end

if path ~= "" then
  local last = read() or "" -- as HAProxy loaded it
  core.register_task(function()
    while true do
      core.msleep(500)
      local text = read()
      if text and text ~= last then
        local old, new = parsed(last), parsed(text)
        for hash, grant in pairs(new) do
          if old[hash] ~= grant then core.set_map(path, hash, grant) end
        end
        for hash in pairs(old) do
          if not new[hash] then core.del_map(path, hash) end
        end
        last = text
      end
    end
  end)
end
