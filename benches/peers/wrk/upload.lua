-- POST a body of the size given as argument; "chunked" as second sends it in chunks of 8 KiB.
local raw

function init(args)
  local size = tonumber(args[1])
  if args[2] == "chunked" then
    local piece = 8192
    local chunk = string.format("%x\r\n%s\r\n", piece, string.rep("x", piece))
    raw = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
      .. string.rep(chunk, size / piece) .. "0\r\n\r\n"
  else
    raw = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " .. size .. "\r\n\r\n" .. string.rep("x", size)
  end
end

function request()
  return raw
end
