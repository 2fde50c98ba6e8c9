-- Lobbies and breakout rooms as Jitsi Meet's own plug-ins make them, as far as others can see it: where they keep what
-- belongs to which conference, whose affiliations count, and at which priority they refuse. Those plug-ins are not part
-- of this repository, so this stands for them in tests. It belongs on the component of the breakout rooms.
local jid = require "util.jid";
local json = require "util.json";
local st = require "util.stanza";
local uuid = require "util.uuid";

local main_host = module:get_option_string("main_muc");
local lobby_host = module:get_option_string("lobby_muc");
local main_of = {}; -- address of a breakout room -> address of its conference

local function rooms_of(host) return prosody.hosts[host].modules.muc; end

local function conference(address) return address and rooms_of(main_host).get_room_from_jid(address); end

-- The affiliations of the conference are those of its lobby and of its breakout rooms.
local function borrow_affiliations(host, find_conference)
	rooms_of(host).room_mt.get_affiliation = function (room, address)
		local main = find_conference(room);
		return main and main:get_affiliation(address) or "none";
	end
end

-- Breakout rooms: a moderator asks the component for one, everybody in the conference is told of its address, and only
-- announced ones can be entered.

local function announce(main)
	local rooms = {};
	for address, subject in pairs(main._data.breakout_rooms) do
		rooms[jid.node(address)] = { jid = address, name = subject };
	end
	local news = json.encode({ type = "breakout_rooms", event = "features/breakout-rooms/update", rooms = rooms });
	for _, occupant in main:each_occupant() do
		module:send(st.message({ from = module.host, to = occupant.jid })
			:tag("json-message", { xmlns = "http://jitsi.org/jitmeet" }):text(news));
	end
end

module:hook("message/host", function (event)
	local request = event.stanza:get_child("breakout_rooms");
	if not request or request.attr.type ~= "features/breakout-rooms/add" then return; end
	for main in rooms_of(main_host).each_room() do
		local occupant = main:get_occupant_by_real_jid(event.stanza.attr.from);
		if occupant and occupant.role == "moderator" then
			local address = jid.join(uuid.generate(), module.host);
			main._data.breakout_rooms = main._data.breakout_rooms or {};
			main._data.breakout_rooms[address] = request.attr.subject;
			main_of[address] = main.jid;
			announce(main);
		end
	end
	return true;
end);

module:hook("muc-room-pre-create", function (event)
	if main_of[event.room.jid] then return; end
	event.origin.send(st.error_reply(event.stanza, "cancel", "item-not-found")); -- Jitsi's says nothing at all
	return true;
end);

-- Lobby: a conference for members only has one, and who is not a member is sent there.

local function close_lobby(main)
	local lobby = main._data.lobbyroom and rooms_of(lobby_host).get_room_from_jid(main._data.lobbyroom);
	main._data.lobbyroom = nil;
	if not lobby then return; end
	lobby:set_persistent(false);
	lobby:destroy(nil, "Lobby room closed.");
end

local function watch_lobbies()
	module:context(main_host):hook("muc-room-destroyed", function (event) close_lobby(event.room); end, 1);

	module:context(main_host):hook("muc-config-submitted", function (event)
		local main = event.room;
		if not event.fields["muc#roomconfig_membersonly"] then return close_lobby(main); end
		if main._data.lobbyroom then return; end
		local lobby = rooms_of(lobby_host).create_room(jid.join(jid.node(main.jid), lobby_host));
		lobby:set_persistent(true);
		lobby.main_room_jid = main.jid;
		main._data.lobbyroom = lobby.jid;
	end);

	module:context(main_host):hook("muc-occupant-pre-join", function (event)
		local main, stanza = event.room, event.stanza;
		local affiliation = main:get_affiliation(stanza.attr.from) or "none";
		if not main:get_members_only() or not main._data.lobbyroom or affiliation ~= "none" then return; end
		event.origin.send(st.error_reply(stanza, "auth", "registration-required")
			:tag("lobbyroom", { xmlns = "http://jitsi.org/jitmeet" }):text(main._data.lobbyroom));
		return true;
	end, -4);
end

module:hook_global("server-started", function ()
	borrow_affiliations(module.host, function (room) return conference(main_of[room.jid]); end);
	borrow_affiliations(lobby_host, function (room) return conference(room.main_room_jid); end);
	rooms_of(module.host).room_mt.get_members_only = function (room)
		local main = conference(main_of[room.jid]);
		return main and main:get_members_only() or false;
	end
	watch_lobbies();
end);
