-- Lets test_properties.py ask the pure library: a question a line, arguments in hexadecimal, an answer a line.

local uvs = dofile(arg[1]);

local function unhex(text)
	return (text:gsub("%x%x", function (pair) return string.char(tonumber(pair, 16)); end));
end

local function hex(text)
	return (text:gsub(".", function (char) return ("%02x"):format(char:byte()); end));
end

-- Lists have a metatable. An empty table is an empty object, or a null in a list.
local function show(value)
	if type(value) == "string" then return '"'..hex(value)..'"'; end
	if type(value) == "number" then return ("%.17g"):format(value); end
	if type(value) ~= "table" then return tostring(value); end
	local parts = {};
	if getmetatable(value) then
		for _, item in ipairs(value) do parts[#parts + 1] = show(item); end
		return "["..table.concat(parts, ",").."]";
	end
	for key, item in pairs(value) do parts[#parts + 1] = hex(key)..":"..show(item); end
	table.sort(parts);
	return "{"..table.concat(parts, ",").."}";
end

local questions = {
	base32 = function (bytes) return uvs.base32(bytes); end;
	loggable = function (text) return hex(uvs.loggable(text)); end;
	object = function (text) return show(uvs.read_object(text)); end;
	token = function (jwt, issuer)
		local claims, flaw = uvs.read_token(jwt, issuer);
		return claims and show(claims) or "no "..flaw;
	end;
	verdict = function (status, body)
		local verdict, text, reason = uvs.read_verdict(tonumber(status), body);
		if verdict then return show(verdict); end
		assert(uvs.texts[text] and reason);
		return "no "..text;
	end;
};

for line in io.lines() do
	local question, first, second = line:match("^(%a[%w]*) (%x*) ?(%x*)$");
	print(questions[question](unhex(first), unhex(second)));
	io.flush();
end
