-- luacheck .
std = "min" -- what Lua 5.2 to 5.4 have in common
max_line_length = 120
cache = false
include_files = { ".luacheckrc", "prosody_lua/*.lua", "tests/lua/*.lua", "tests/parts/prosody_plugins/*.lua" }

for _, modules in ipairs { "prosody_lua/mod_*.lua", "tests/parts/prosody_plugins/*.lua" } do
	files[modules] = { read_globals = { "module", "prosody" } }
end
files["tests/lua/*.lua"] = { std = "min+busted" }
