-- What mod_auth_matrix_user_verification and mod_matrix_power_sync decide without touching Prosody: how a room is
-- named, what a token claims, what the verification service answered. Everything read here was written by strangers,
-- so every reader says "no" with a reason and none of them raises an error.
--
-- Runs on Lua 5.2 to 5.4, hence no bit operators, no goto, no utf8 library.

local uvs = {};

-- What a refused person reads. Clients show the text as it stands, so there is nothing in it that XML or HTML escapes.
uvs.texts = {
	["no-matrix"] = "This conference can only be joined from its Matrix room.";
	["other-room"] = "This conference belongs to another Matrix room.";
	["not-member"] = "You are not a member of the Matrix room of this conference.";
	["unverified"] = "Your Matrix account could not be verified. Close the call and open it again.";
	["unavailable"] = "Your Matrix account cannot be verified right now. Please try again in a minute.";
};

local MAX_IDENTIFIER = 255; -- bytes, by the Matrix specification
local MAX_TOKEN = 16384; -- bytes of a JWT; Prosody 0.12 does not even read request heads of more than 10,240
local MAX_DEPTH = 16; -- of JSON; the answer of the service needs 4, a token 3
local MAX_NAME = 255; -- bytes of a name that is shown
local MAX_AVATAR = 2048; -- bytes of the address of a picture

-- Encodings ----------------------------------------------------------------------------------------------------------

local BASE32 = "abcdefghijklmnopqrstuvwxyz234567";

-- RFC 4648, lower case, no padding. There is no decoder on purpose: a room's name is compared with the one spelling
-- that its Matrix room has, so that no other spelling can lead anywhere.
function uvs.base32(bytes)
	local out, buffer, bits = {}, 0, 0;
	for i = 1, #bytes do
		buffer, bits = buffer * 256 + bytes:byte(i), bits + 8;
		while bits >= 5 do
			bits = bits - 5;
			local unit = 2 ^ bits;
			local digit = (buffer - buffer % unit) / unit;
			out[#out + 1] = BASE32:sub(digit + 1, digit + 1);
			buffer = buffer % unit;
		end
	end
	if bits > 0 then
		local digit = buffer * 2 ^ (5 - bits);
		out[#out + 1] = BASE32:sub(digit + 1, digit + 1);
	end
	return table.concat(out);
end

local base64url_value = {};
do
	local alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	for i = 1, #alphabet do base64url_value[alphabet:byte(i)] = i - 1; end
end

local function base64url_decode(text)
	if #text % 4 == 1 then return nil; end
	local out, buffer, bits = {}, 0, 0;
	for i = 1, #text do
		local value = base64url_value[text:byte(i)];
		if not value then return nil; end
		buffer, bits = buffer * 64 + value, bits + 6;
		if bits >= 8 then
			bits = bits - 8;
			local unit = 2 ^ bits;
			out[#out + 1] = string.char((buffer - buffer % unit) / unit);
			buffer = buffer % unit;
		end
	end
	return table.concat(out);
end

-- How many bytes follow that first one in well-formed UTF-8, and the range of the next.
local function utf8_follow(first)
	if first >= 0xC2 and first <= 0xDF then return 1, 0x80, 0xBF; end
	if first == 0xE0 then return 2, 0xA0, 0xBF; end
	if first == 0xED then return 2, 0x80, 0x9F; end -- surrogates are not characters
	if first >= 0xE1 and first <= 0xEF then return 2, 0x80, 0xBF; end
	if first == 0xF0 then return 3, 0x90, 0xBF; end
	if first >= 0xF1 and first <= 0xF3 then return 3, 0x80, 0xBF; end
	if first == 0xF4 then return 3, 0x80, 0x8F; end
end

local function is_utf8(text)
	local at = text:find("[\128-\255]");
	while at do
		local count, low, high = utf8_follow(text:byte(at));
		if not count then return false; end
		for i = 1, count do
			local byte = text:byte(at + i);
			if not byte or byte < low or byte > high then return false; end
			low, high = 0x80, 0xBF;
		end
		at = text:find("[\128-\255]", at + count + 1);
	end
	return true;
end

local function utf8_char(code)
	if code < 0x80 then return string.char(code); end
	local tail = "";
	local first = code < 0x800 and 0xC0 or code < 0x10000 and 0xE0 or 0xF0;
	for _ = 1, code < 0x800 and 1 or code < 0x10000 and 2 or 3 do
		tail = string.char(0x80 + code % 64) .. tail;
		code = (code - code % 64) / 64;
	end
	return string.char(first + code) .. tail;
end

-- JSON ---------------------------------------------------------------------------------------------------------------

-- Prosody's util.json is made for its own files: it raises errors on some inputs, gives special meaning to keys named
-- "__array" and "__hash", and knows no limit of depth. This reader takes RFC 8259 and nothing else.

local NULL = {};
local array_mt = {};
local nulls = setmetatable({}, { __mode = "k" }); -- which members of an object are null
local escapes = {
	['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t";
};
local read_value;

local function skip(text, at)
	return text:find("[^ \t\r\n]", at) or #text + 1;
end

-- All of these return the value and where the text goes on, or nothing.
local function read_string(text, at)
	local out = {};
	at = at + 1;
	while true do
		local stop = text:find('[%c"\\]', at);
		while stop and text:byte(stop) == 127 do stop = text:find('[%c"\\]', stop + 1); end -- DEL needs no escape
		if not stop then return nil; end
		out[#out + 1] = text:sub(at, stop - 1);
		local char = text:sub(stop, stop);
		if char == '"' then return table.concat(out), stop + 1; end
		if char ~= "\\" then return nil; end
		local escape = text:sub(stop + 1, stop + 1);
		if escapes[escape] then
			out[#out + 1] = escapes[escape];
			at = stop + 2;
		else
			local code = tonumber(text:match("^u(%x%x%x%x)", stop + 1) or "", 16);
			if not code or code >= 0xDC00 and code <= 0xDFFF then return nil; end
			at = stop + 6;
			if code >= 0xD800 and code <= 0xDBFF then
				local low = tonumber(text:match("^\\u(%x%x%x%x)", at) or "", 16);
				if not low or low < 0xDC00 or low > 0xDFFF then return nil; end
				code = 0x10000 + (code - 0xD800) * 0x400 + (low - 0xDC00);
				at = at + 6;
			end
			out[#out + 1] = utf8_char(code);
		end
	end
end

local function read_number(text, at)
	local stop = select(2, text:find("^-?[1-9]%d*", at)) or select(2, text:find("^-?0", at));
	if not stop then return nil; end
	stop = select(2, text:find("^%.%d+", stop + 1)) or stop;
	stop = select(2, text:find("^[eE][+-]?%d+", stop + 1)) or stop;
	return tonumber(text:sub(at, stop)), stop + 1;
end

local function read_members(text, at, depth, closing, read_member, into)
	at = skip(text, at + 1);
	if text:sub(at, at) == closing then return into, at + 1; end
	while true do
		at = read_member(text, at, depth, into);
		if not at then return nil; end
		at = skip(text, at);
		local char = text:sub(at, at);
		if char == closing then return into, at + 1; end
		if char ~= "," then return nil; end
		at = skip(text, at + 1);
	end
end

local function read_pair(text, at, depth, into)
	if text:sub(at, at) ~= '"' then return nil; end
	local key, value;
	key, at = read_string(text, at);
	at = key and skip(text, at);
	if not at or text:sub(at, at) ~= ":" then return nil; end
	value, at = read_value(text, skip(text, at + 1), depth);
	if value == nil then return nil; end
	if value == NULL or nulls[into] then
		nulls[into] = nulls[into] or {};
		nulls[into][key] = value == NULL or nil;
	end
	if value == NULL then value = nil; end -- nearly everywhere, a member that is null and one that is absent say the same
	into[key] = value;
	return at;
end

local function read_item(text, at, depth, into)
	local value;
	value, at = read_value(text, at, depth);
	if value == nil then return nil; end
	into[#into + 1] = value;
	return at;
end

local literals = { t = { "true", true }, f = { "false", false }, n = { "null", NULL } };

function read_value(text, at, depth)
	if depth > MAX_DEPTH then return nil; end
	local char = text:sub(at, at);
	if char == "{" then return read_members(text, at, depth + 1, "}", read_pair, {}); end
	if char == "[" then return read_members(text, at, depth + 1, "]", read_item, setmetatable({}, array_mt)); end
	if char == '"' then return read_string(text, at); end
	local literal = literals[char];
	if not literal then return read_number(text, at); end
	if text:sub(at, at + #literal[1] - 1) == literal[1] then return literal[2], at + #literal[1]; end
end

local function is_array(value)
	return getmetatable(value) == array_mt;
end

local function is_object(value)
	return type(value) == "table" and value ~= NULL and not is_array(value);
end

-- The object that the text is, or nothing.
function uvs.read_object(text)
	if type(text) ~= "string" or not is_utf8(text) then return nil; end
	local value, at = read_value(text, skip(text, 1), 0);
	if value == nil or skip(text, at) <= #text or not is_object(value) then return nil; end
	return value;
end

-- Tokens -------------------------------------------------------------------------------------------------------------

local function is_optional_string(value)
	return value == nil or type(value) == "string";
end

local function is_audience(value)
	if not is_array(value) then return is_optional_string(value); end
	for _, item in ipairs(value) do
		if type(item) ~= "string" then return false; end
	end
	return true;
end

-- The service refuses more than this; whatever it would refuse anyway need not be sent to it.
local function is_room_id(value)
	return type(value) == "string" and #value <= MAX_IDENTIFIER and value:find("^![^%c%s/\\?#%%]+$") ~= nil;
end

local function is_server_name(value)
	return #value <= MAX_IDENTIFIER and value:find("^[%w.:%[%]-]+$") ~= nil;
end

-- The name as it can be shown: no control characters (which also could not be sent as XML), cut between characters.
local function displayable_name(name)
	name = name:gsub("%c+", " "):gsub("\239\191[\190\191]", ""):match("^%s*(.-)%s*$");
	if #name > MAX_NAME then
		name = name:sub(1, MAX_NAME);
		while not is_utf8(name) do name = name:sub(1, -2); end
	end
	return name ~= "" and name or nil;
end

local function displayable_avatar(avatar)
	if #avatar <= MAX_AVATAR and avatar:find("^https?://[!-~]+$") and not avatar:find("[\"'<>`\\]") then
		return avatar;
	end
end

local function read_part(part)
	local text = base64url_decode(part);
	return text and uvs.read_object(text);
end

-- What a JWT claims: { room_id, token, server_name or nil, user = { name or nil, avatar or nil } }, or nil and the
-- reason, for the log. The signature is not looked at, for nothing here is believed: the OpenID token in it proves.
function uvs.read_token(jwt, issuer)
	if type(jwt) ~= "string" or jwt == "" then return nil, "no-token"; end
	if #jwt > MAX_TOKEN then return nil, "token-too-long"; end
	local head, body, signature = jwt:match("^([^.]+)%.([^.]+)%.([^.]+)$");
	if not head or not base64url_decode(signature) then return nil, "not-a-jwt"; end
	head, body = read_part(head), read_part(body);
	if not head or not body then return nil, "not-a-jwt"; end
	if not is_optional_string(head.alg) or not is_optional_string(head.typ) then return nil, "bad-header"; end
	if body.iss ~= issuer then return nil, "wrong-issuer"; end
	if not is_audience(body.aud) or not is_optional_string(body.sub) or not is_optional_string(body.room) then
		return nil, "bad-claims";
	end
	local context = body.context;
	if not is_object(context) then return nil, "no-context"; end
	local user, matrix = context.user or {}, context.matrix;
	if not is_object(user) or not is_optional_string(user.name) or not is_optional_string(user.avatar) then
		return nil, "bad-user";
	end
	if not is_object(matrix) then return nil, "no-matrix-context"; end
	if type(matrix.token) ~= "string" or matrix.token == "" or matrix.token:find("\0", 1, true) then
		return nil, "no-openid-token";
	end
	if not is_room_id(matrix.room_id) then return nil, "bad-room-id"; end
	local server_name = matrix.server_name;
	if server_name == "" then server_name = nil; end
	if not is_optional_string(server_name) or server_name and not is_server_name(server_name) then
		return nil, "bad-server-name";
	end
	return {
		room_id = matrix.room_id;
		token = matrix.token;
		server_name = server_name;
		user = {
			name = user.name and displayable_name(user.name);
			avatar = user.avatar and displayable_avatar(user.avatar);
		};
	};
end

-- Verdicts -----------------------------------------------------------------------------------------------------------

local function is_user_id(value)
	return type(value) == "string" and #value <= MAX_IDENTIFIER and value:find("^@[^:%c%s]*:[^%c%s]+$") ~= nil;
end

local function is_level(value)
	return type(value) == "number" and value > -math.huge and value < math.huge;
end

-- What the service answered: { user_id, level, moderator_level }, or nil, which text the person is to read, and the
-- reason for the log. Only the one shape is a yes, and only a clear no is told the person as one: everything else means
-- that it cannot be told. Both levels are nil where the service says that it cannot know them.
function uvs.read_verdict(status, body)
	local answer = uvs.read_object(body) or {};
	if status == 400 then return nil, "unverified", "request-refused"; end
	if status ~= 200 then
		local reference = type(answer.reference) == "string" and answer.reference or "none";
		return nil, "unavailable", ("status %s, reference %s"):format(tostring(status), uvs.loggable(reference));
	end
	local results, levels = answer.results, answer.power_levels;
	if not is_object(results) then return nil, "unavailable", "unreadable-answer"; end
	if results.user == false then return nil, "unverified", "token-refused"; end
	if results.user == true and results.room_membership == false then
		return nil, "not-member", "not-in-room: "..uvs.loggable(answer.user_id);
	end
	if results.user ~= true or results.room_membership ~= true or not is_user_id(answer.user_id) then
		return nil, "unavailable", "unreadable-answer";
	end
	if nulls[answer] and nulls[answer].power_levels then return { user_id = answer.user_id }; end
	if not is_object(levels) or not is_level(levels.user) or not is_object(levels.room) then
		return nil, "unavailable", "unreadable-answer";
	end
	local moderator_level = levels.room.state_default;
	if moderator_level == nil then moderator_level = 50; end -- COMPAT: services that pass the room's content on unfilled
	if not is_level(moderator_level) then return nil, "unavailable", "unreadable-answer"; end
	return { user_id = answer.user_id, level = levels.user, moderator_level = moderator_level };
end

-- Whether that level is a moderator's, by the option uvs_sync_power_levels. One that nobody knows never is.
function uvs.is_moderator(verdict, sync)
	if not verdict.level then return false; end
	if sync == true then return verdict.level >= verdict.moderator_level; end
	return type(sync) == "number" and verdict.level >= sync;
end

-- Logging ------------------------------------------------------------------------------------------------------------

-- A stranger's text as it can stand in a line of the log: printable ASCII, and not endless.
function uvs.loggable(text)
	return (tostring(text):sub(1, MAX_IDENTIFIER):gsub("[^%w!@:._=/+*~$-]", "?"));
end

return uvs;
