-- Encode Lua values as JSON.

local json = {}

local function quoted(text)
  return '"' .. text:gsub('[%c"\\\127]', function(letter)
    return string.format("\\u%04x", letter:byte())
  end) .. '"'
end

-- Encode a number, string, boolean, list or table with string keys; an empty table is a list.
function json.encode(value)
  if type(value) == "number" then return string.format("%.15g", value) end
  if type(value) == "string" then return quoted(value) end
  if type(value) ~= "table" then return tostring(value) end
  local parts = {}
  if #value > 0 or next(value) == nil then
    for _, one in ipairs(value) do parts[#parts + 1] = json.encode(one) end
    return "[" .. table.concat(parts, ",") .. "]"
  end
  for name, one in pairs(value) do parts[#parts + 1] = quoted(name) .. ":" .. json.encode(one) end
  return "{" .. table.concat(parts, ",") .. "}"
end

return json
