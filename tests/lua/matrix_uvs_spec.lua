-- Run from the root of the repository: lua5.4 /usr/bin/busted tests/lua
local uvs = dofile("prosody_lua/matrix_uvs.lib.lua");

local ISSUER = "meet.example";

local function base64url(bytes)
	local alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	local bits = bytes:gsub(".", function (char)
		local byte, text = char:byte(), "";
		for power = 7, 0, -1 do text = text .. math.floor(byte / 2 ^ power) % 2; end
		return text;
	end);
	bits = bits .. ("0"):rep(-#bits % 6);
	return (bits:gsub("......", function (six)
		local at = tonumber(six, 2) + 1;
		return alphabet:sub(at, at);
	end));
end

local HEADER = base64url('{"alg":"HS256","typ":"JWT"}');

local function jwt_of(body, header)
	return (header and base64url(header) or HEADER) .. "." .. base64url(body) .. ".c2lnbmF0dXJl";
end

-- A token as Element makes it; `parts` replaces the JSON of its members.
local function body_with(parts)
	parts = parts or {};
	local matrix = parts.matrix or ('{"token":%s,"room_id":%s%s}'):format(parts.token or '"opaque"',
		parts.room_id or '"!room:example"', parts.server_name and ',"server_name":' .. parts.server_name or "");
	local context = parts.context or ('{"user":%s,"matrix":%s}'):format(
		parts.user or '{"avatar":"https://example/a.png","name":"Alice"}', matrix);
	return ('{"aud":%s,"iss":%s,"sub":%s,"room":%s,"context":%s}'):format(parts.aud or '"https://meet.example"',
		parts.iss or '"meet.example"', parts.sub or '"meet.example"', parts.room or '"*"', context);
end

local function read_with(parts)
	return uvs.read_token(jwt_of(body_with(parts)), ISSUER);
end

describe("A room's name", function ()
	-- The vectors of RFC 4648, and what Element makes of room ids with and without a server name.
	for bytes, name in pairs {
		[""] = "", f = "my", fo = "mzxq", foo = "mzxw6", foob = "mzxw6yq", fooba = "mzxw6ytb", foobar = "mzxw6ytboi",
		["!abc:example.org"] = "efqweyz2mv4gc3lqnrss433sm4", ["\0\255\128"] = "ad7ya",
	} do
		it(("is %q for %q"):format(name, bytes), function ()
			assert.are.equal(name, uvs.base32(bytes));
		end);
	end

	it("tells any two of many room ids apart", function ()
		local seen = {};
		for i = 0, 4095 do
			local name = uvs.base32("!" .. string.char(math.floor(i / 256)) .. string.char(i % 256));
			assert.is_nil(seen[name]);
			seen[name] = true;
		end
	end);
end);

describe("JSON", function ()
	for text, value in pairs {
		['{"a":1}'] = 1, ['{"a":-0.5e+2}'] = -50, ['{ "a" : true }'] = true, ['{"a":false}'] = false,
		['{"a":"\\u00e9\\ud83d\\ude00\\n\\/"}'] = "\195\169\240\159\152\128\n/", ['{"a":"\127"}'] = "\127",
		['{"a":"","b":[],"c":{},"d":[1,null,"x"]}'] = "", ['\t{"a":9007199254740991}\r\n'] = 9007199254740991,
		['{"a":1,"a":2}'] = 2, ['{"__array":5,"__hash":[1],"a":3}'] = 3,
	} do
		it("is read from " .. text:gsub("%c", "."), function ()
			assert.are.equal(value, uvs.read_object(text).a);
		end);
	end

	it("says the same with null as with nothing", function ()
		assert.is_nil(uvs.read_object('{"a":null}').a);
		assert.is_nil(uvs.read_object('{"a":1,"a":null}').a);
	end);

	for name, text in pairs {
		["nothing"] = "", ["white space"] = "  ", ["a list"] = "[]", ["a word"] = "true", ["null"] = "null",
		["a string"] = '"a"', ["a number"] = "1", ["half an object"] = "{", ["a key alone"] = '{"a"}',
		["a key and a colon"] = '{"a":}', ["a bare key"] = "{a:1}", ["a comma too many"] = '{"a":1,}',
		["a comma too few"] = '{"a":1 "b":2}', ["something after it"] = '{"a":1}x', ["two objects"] = "{}{}",
		["a leading zero"] = '{"a":01}', ["a bare sign"] = '{"a":-}', ["a point alone"] = '{"a":1.}',
		["half an exponent"] = '{"a":1e}', ["hexadecimal"] = '{"a":0x10}', ["infinity"] = '{"a":Infinity}',
		["an endless string"] = '{"a":"b}', ["a new line in a string"] = '{"a":"\n"}', ["a NUL"] = '{"a":"\0"}',
		["an unknown escape"] = '{"a":"\\x"}', ["half an escape"] = '{"a":"\\u12"}', ["an escape at the end"] = '{"a":"\\',
		["a lone surrogate"] = '{"a":"\\ud800"}', ["surrogates in the wrong order"] = '{"a":"\\udc00\\ud800"}',
		["a comment"] = '{/**/"a":1}', ["single quotes"] = "{'a':1}", ["a cut word"] = '{"a":tru}',
		["Latin-1"] = '{"a":"\233"}', ["overlong UTF-8"] = '{"a":"\192\175"}',
		["an encoded surrogate"] = '{"a":"\237\160\128"}',
		["beyond Unicode"] = '{"a":"\244\144\128\128"}', ["cut UTF-8"] = '{"a":"\226\130"}',
		["a byte order mark"] = "\239\187\191{}", ["deep lists"] = '{"a":' .. ("["):rep(100000),
		["deep objects"] = ('{"a":'):rep(100000), ["17 levels"] = ('{"a":'):rep(17) .. "1" .. ("}"):rep(17),
	} do
		it("is not " .. name, function ()
			assert.is_nil(uvs.read_object(text));
		end);
	end

	it("is nothing that is not text", function ()
		for _, value in ipairs { false, 1, {} } do assert.is_nil(uvs.read_object(value)); end
		assert.is_nil(uvs.read_object(nil));
	end);
end);

describe("A token", function ()
	it("claims a room, an OpenID token and who to show", function ()
		assert.are.same({
			room_id = "!room:example"; token = "opaque";
			user = { name = "Alice", avatar = "https://example/a.png" };
		}, (read_with()));
	end);

	it("may name the server of the OpenID token", function ()
		assert.are.equal("matrix.example:8448", read_with({ server_name = '"matrix.example:8448"' }).server_name);
		assert.are.equal("[::1]:8448", read_with({ server_name = '"[::1]:8448"' }).server_name);
		assert.is_nil(read_with({ server_name = '""' }).server_name);
		assert.is_nil(read_with({ server_name = "null" }).server_name);
	end);

	it("may be for a room of version 12", function ()
		local room_id = "!" .. ("a"):rep(43);
		assert.are.equal(room_id, read_with({ room_id = '"' .. room_id .. '"' }).room_id);
	end);

	it("passes the OpenID token on as it is", function ()
		assert.are.equal(" a+/=%00 ", read_with({ token = '" a+/=%00 "' }).token);
	end);

	it("needs to show nobody", function ()
		assert.are.same({}, read_with({ user = "{}" }).user);
		assert.are.same({}, read_with({ user = "null" }).user);
		assert.are.same({}, read_with({ user = '{"name":null,"avatar":""}' }).user);
	end);

	it("grants nothing that it claims", function ()
		assert.are.same({ name = "Eve" },
			read_with({ user = '{"name":"Eve","id":"x","moderator":true,"affiliation":"owner"}' }).user);
		local claims = read_with({ context = '{"features":{"recording":true},"group":"g","user":{},' ..
			'"matrix":{"token":"t","room_id":"!r:x"}}' });
		assert.are.same({ room_id = "!r:x", token = "t", user = {} }, claims);
	end);

	it("may have several audiences", function ()
		assert.is_table(read_with({ aud = '["a","b"]' }));
	end);

	for shown, given in pairs {
		["a  b"] = '"a\\u0000\\u001f\\n b"', ["x"] = '" \\t x\\r\\n"', ["\240\159\152\128"] = '"\\ud83d\\ude00\\uffff"',
	} do
		it(("shows the name %s as %q"):format(given, shown), function ()
			assert.are.equal(shown, read_with({ user = '{"name":' .. given .. "}" }).user.name);
		end);
	end

	it("shows no more than 255 bytes of a name, and whole characters", function ()
		local given = '{"name":"' .. ("\195\169"):rep(200) .. '"}';
		assert.are.equal(("\195\169"):rep(127), read_with({ user = given }).user.name);
	end);

	for _, avatar in ipairs {
		"javascript:alert(1)", "mxc://x/y", "data:image/png;base64,AA", "//x/y", "https://", "https://x/ y",
		"https://x/\\u0000", "https://x/\\\"onerror=", "https://x/<b>", "https://x/" .. ("a"):rep(2048),
	} do
		it("does not show the picture " .. avatar:sub(1, 40), function ()
			assert.is_nil(read_with({ user = '{"avatar":"' .. avatar .. '"}' }).user.avatar);
		end);
	end

	local good = jwt_of(body_with());
	local refused = {
		{ "nothing", "no-token", nil }, { "an empty one", "no-token", "" }, { "a number", "no-token", 5 },
		{ "one part", "not-a-jwt", "abc" }, { "two parts", "not-a-jwt", "abc.def" },
		{ "four parts", "not-a-jwt", good .. ".x" },
		{ "dots", "not-a-jwt", ".." }, { "no header", "not-a-jwt", good:match("%..*") },
		{ "no body", "not-a-jwt", HEADER .. "..c2ln" }, { "no signature", "not-a-jwt", good:match("^[^.]+%.[^.]+%.") },
		{ "a signature that is not base64url", "not-a-jwt", good .. "!" },
		{ "padding", "not-a-jwt", HEADER .. "." .. base64url("{}") .. "=.c2ln" },
		{ "plain base64", "not-a-jwt", HEADER .. ".e30+.c2ln" },
		{ "an impossible length", "not-a-jwt", HEADER .. ".e30aa.c2ln" },
		{ "spaces", "not-a-jwt", " " .. good }, { "a NUL", "not-a-jwt", good .. "\0" },
		{ "bytes for a body", "not-a-jwt", jwt_of("\0\1\2\255") }, { "text for a body", "not-a-jwt", jwt_of("hello") },
		{ "an empty body", "not-a-jwt", HEADER .. "." .. base64url("") .. ".c2ln" },
		{ "a list for a body", "not-a-jwt", jwt_of("[]") }, { "null for a body", "not-a-jwt", jwt_of("null") },
		{ "a string for a body", "not-a-jwt", jwt_of('"x"') }, { "true for a body", "not-a-jwt", jwt_of("true") },
		{ "a deep body", "not-a-jwt", jwt_of(('{"a":'):rep(2000)) },
		{ "a list for a header", "not-a-jwt", jwt_of(body_with(), "[]") },
		{ "bytes for a header", "not-a-jwt", jwt_of(body_with(), "\255") },
		{ "an algorithm that is a number", "bad-header", jwt_of(body_with(), '{"alg":5}') },
		{ "a type that is a list", "bad-header", jwt_of(body_with(), '{"typ":[]}') },
		{ "too much", "token-too-long", jwt_of(body_with({ user = '{"name":"' .. ("a"):rep(16384) .. '"}' })) },
		{ "no claims", "wrong-issuer", jwt_of("{}") },
	};
	local function refuse(what, reason, parts) refused[#refused + 1] = { what, reason, jwt_of(body_with(parts)) }; end
	for _, issuer in ipairs { '"other.example"', '"MEET.EXAMPLE"', '"meet.example "', '""', "5", "true", "null", "[]",
		'["meet.example"]', '{"a":"meet.example"}' } do
		refuse("the issuer " .. issuer, "wrong-issuer", { iss = issuer });
	end
	for _, claim in ipairs { "aud", "sub", "room" } do
		for _, value in ipairs { "5", "true", "{}", "[5]" } do
			refuse(claim .. " " .. value, "bad-claims", { [claim] = value });
		end
	end
	for _, value in ipairs { "null", "5", "true", '"x"', "[]", "[{}]" } do
		refuse("the context " .. value, "no-context", { context = value });
		refuse("the Matrix context " .. value, "no-matrix-context", { matrix = value });
	end
	for _, value in ipairs { "5", "true", '"x"', "[]", '{"name":5}', '{"name":[]}', '{"name":{}}', '{"avatar":true}' } do
		refuse("the user " .. value, "bad-user", { user = value });
	end
	for _, value in ipairs { "null", "5", "true", '""', "[]", "{}", '["t"]', '"a\\u0000b"' } do
		refuse("the OpenID token " .. value, "no-openid-token", { token = value });
	end
	for _, value in ipairs { "null", "5", "true", '""', "[]", "{}", '"!"', '"room:example"', '"#alias:example"', '"@a:b"',
		'"!a/../b:c"', '"!a?b:c"', '"!a#b:c"', '"!a%2fb:c"', '"!a\\\\b:c"', '"!a\\u0000:c"', '"!a\\n:c"', '"!a b:c"',
		'"!a:c\\u007f"', '"!' .. ("a"):rep(255) .. '"' } do
		refuse("the room " .. value:sub(1, 30), "bad-room-id", { room_id = value });
	end
	for _, value in ipairs { "5", "true", "[]", "{}", '"a/b"', '"a b"', '"a@b"', '"a\\u0000"',
		'"' .. ("a"):rep(256) .. '"' } do
		refuse("the server name " .. value:sub(1, 30), "bad-server-name", { server_name = value });
	end

	for _, case in ipairs(refused) do
		it("is refused with " .. case[1], function ()
			local claims, reason = uvs.read_token(case[3], ISSUER);
			assert.is_nil(claims);
			assert.are.equal(case[2], reason);
		end);
	end

	it("never raises an error, whatever byte of it is changed", function ()
		for at = 1, #good do
			for _, char in ipairs { ".", "A", "_", "\0", "\255", "" } do
				local changed = good:sub(1, at - 1) .. char .. good:sub(at + 1);
				local claims, reason = uvs.read_token(changed, ISSUER);
				assert.is_true(type(claims) == "table" or type(reason) == "string");
			end
		end
	end);
end);

describe("A verdict", function ()
	local YES = '{"results":{"user":%s,"room_membership":%s},"user_id":%s,"power_levels":%s}';

	local function yes_with(parts)
		return YES:format(parts.user or "true", parts.room_membership or "true", parts.user_id or '"@alice:example"',
			parts.power_levels or '{"room":{"state_default":50},"user":0}');
	end

	it("is a yes with who it is and what they may", function ()
		assert.are.same({ user_id = "@alice:example", level = 100, moderator_level = 60 }, (uvs.read_verdict(200,
			yes_with({ power_levels = '{"room":{"state_default":60},"user":100}' }))));
	end);

	it("takes 50 for a moderator's level where none is given", function ()
		assert.are.equal(50, uvs.read_verdict(200, yes_with({ power_levels = '{"room":{},"user":0}' })).moderator_level);
	end);

	it("is a yes without levels where the service says that it cannot know them", function ()
		assert.are.same({ user_id = "@alice:example" }, (uvs.read_verdict(200, yes_with({ power_levels = "null" }))));
	end);

	it("counts the last of two members, whichever of them is null", function ()
		local levels = '{"room":{},"user":50}';
		local both = ('%s,"power_levels":%s');
		assert.are.same({ user_id = "@alice:example" },
			(uvs.read_verdict(200, yes_with({ power_levels = both:format(levels, "null") }))));
		assert.are.equal(50, uvs.read_verdict(200, yes_with({ power_levels = both:format("null", levels) })).level);
	end);

	it("is no yes because of levels that are null", function ()
		for _, parts in ipairs { { user = "1" }, { room_membership = "null" }, { user_id = "null" } } do
			parts.power_levels = "null";
			assert.is_nil((uvs.read_verdict(200, yes_with(parts))));
		end
	end);

	it("is a no with its kind", function ()
		local none, text = uvs.read_verdict(200, '{"results":{"user":false,"room_membership":null},"user_id":null}');
		assert.is_nil(none);
		assert.are.equal("unverified", text);
		local reason;
		none, text, reason = uvs.read_verdict(200, '{"results":{"user":true,"room_membership":false},"user_id":"@a:b"}');
		assert.is_nil(none);
		assert.are.equal("not-member", text);
		assert.are.equal("not-in-room: @a:b", reason);
		none, text = uvs.read_verdict(400, "Invalid request");
		assert.is_nil(none);
		assert.are.equal("unverified", text);
	end);

	local untold = {
		["no body"] = { 200, false }, ["an empty body"] = { 200, "" }, ["a page"] = { 200, "<html>" },
		["a list"] = { 200, "[]" }, ["an empty object"] = { 200, "{}" }, ["a cut body"] = { 200, yes_with({}):sub(1, -2) },
		["status 201"] = { 201, yes_with({}) }, ["status 302"] = { 302, yes_with({}) }, ["status 403"] = { 403, "{}" },
		["status 404"] = { 404, "" }, ["status 429"] = { 429, "{}" }, ["status 502"] = { 502, yes_with({}) },
		["a time-out"] = { "timeout", nil }, ["no connection"] = { "connection refused", nil },
		["a user that is 1"] = { 200, yes_with({ user = "1" }) },
		["a user in quotes"] = { 200, yes_with({ user = '"true"' }) },
		["membership in quotes"] = { 200, yes_with({ room_membership = '"true"' }) },
		["membership unknown"] = { 200, yes_with({ room_membership = "null" }) },
		["nobody"] = { 200, yes_with({ user_id = "null" }) }, ["an empty id"] = { 200, yes_with({ user_id = '""' }) },
		["an id without @"] = { 200, yes_with({ user_id = '"a:b"' }) },
		["an id without :"] = { 200, yes_with({ user_id = '"@a"' }) },
		["an id with a space"] = { 200, yes_with({ user_id = '"@a b:c"' }) },
		["a long id"] = { 200, yes_with({ user_id = '"@' .. ("a"):rep(254) .. ':b"' }) },
		["no levels"] = { 200, (yes_with({}):gsub(',"power_levels":.*', "}")) },
		["false for levels"] = { 200, yes_with({ power_levels = "false" }) },
		["text for levels"] = { 200, yes_with({ power_levels = '"null"' }) },
		["a list of levels"] = { 200, yes_with({ power_levels = "[]" }) },
		["no level"] = { 200, yes_with({ power_levels = '{"room":{}}' }) },
		["no room"] = { 200, yes_with({ power_levels = '{"user":0}' }) },
		["a level in quotes"] = { 200, yes_with({ power_levels = '{"room":{},"user":"100"}' }) },
		["an endless level"] = { 200, yes_with({ power_levels = '{"room":{},"user":1e999}' }) },
		["a default in quotes"] = { 200, yes_with({ power_levels = '{"room":{"state_default":"0"},"user":0}' }) },
	};
	for what, answer in pairs(untold) do
		it("cannot be told from " .. what, function ()
			local verdict, text, reason = uvs.read_verdict(answer[1], answer[2]);
			assert.is_nil(verdict);
			assert.are.equal("unavailable", text);
			assert.is_string(reason);
		end);
	end

	it("gives the reference of an error for the log, harmless", function ()
		local _, _, reason = uvs.read_verdict(502, '{"errcode":"M_UNKNOWN","reference":"ABCD-7*\\nforged"}');
		assert.are.equal("status 502, reference ABCD-7*?forged", reason);
	end);
end);

describe("A moderator", function ()
	local verdict = { user_id = "@a:b", level = 50, moderator_level = 50 };
	for _, case in ipairs {
		{ true, 50, true }, { true, 49, false }, { true, 9007199254740991, true }, { 75, 74, false }, { 75, 75, true },
		{ 0, 0, true }, { 0, -1, false }, { false, 100, false }, { nil, 100, false }, { "true", 100, false },
	} do
		local sync, level, expected = case[1], case[2], case[3];
		it(("is%s somebody with %d when uvs_sync_power_levels is %s"):format(expected and "" or " not", level,
			tostring(sync)), function ()
			verdict.level = level;
			assert.are.equal(expected, uvs.is_moderator(verdict, sync));
		end);
	end
end);

describe("Somebody whose level cannot be known", function ()
	for _, sync in ipairs { true, false, 50, 0, -1 } do
		it("is no moderator when uvs_sync_power_levels is "..tostring(sync), function ()
			assert.is_false(uvs.is_moderator({ user_id = "@a:b" }, sync));
		end);
	end
end);

describe("What people and operators read", function ()
	it("has nothing that is escaped in XML or HTML", function ()
		local count = 0;
		for _, text in pairs(uvs.texts) do
			assert.is_nil(text:find("['\"&<>]"));
			count = count + 1;
		end
		assert.are.equal(5, count);
	end);

	it("cannot be made to look like another line of the log", function ()
		assert.are.equal("!a:b??error?x", uvs.loggable("!a:b\r\nerror\tx"));
		assert.are.equal("??", uvs.loggable("\195\169"));
		assert.are.equal(255, #uvs.loggable(("x"):rep(10000)));
	end);
end);
