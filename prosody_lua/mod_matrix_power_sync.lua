-- Guards the rooms of one MUC component: only people whose Matrix membership was proven enter their conference, its
-- lobby and its breakout rooms, and with uvs_sync_power_levels only moderators of the Matrix room moderate there.
-- See docs/prosody.md.
--
-- mod_auth_matrix_user_verification loads this module wherever rooms are; it can also be in modules_enabled.

local jid = require "util.jid";
local st = require "util.stanza";
local usermanager = require "core.usermanager";

local uvs = module:require "matrix_uvs";

local FIRST = 1000; -- priority: before any handler of Prosody or Jitsi acts on what is to be refused
local LAST = -100000; -- after lobby, password, members-only, ban, lock and whatever else may refuse somebody

local NOT_JOINED = "You have not joined this conference.";

local MUC_ADMIN = "http://jabber.org/protocol/muc#admin";
local MUC_USER = "http://jabber.org/protocol/muc#user";

local hosts = prosody.hosts;
local full_sessions, bare_sessions = prosody.full_sessions, prosody.bare_sessions;

if module:get_host_type() ~= "component" then
	error("mod_matrix_power_sync guards rooms: it belongs on their component, not on a VirtualHost", 0);
end

-- Who is who ---------------------------------------------------------------------------------------------------------

local function authority_of(host)
	local session = hosts[host];
	return session and session.modules and session.modules.auth_matrix_user_verification;
end

-- Whether one of the VirtualHosts with Matrix logins says so.
local function any_authority(question, ...)
	for host in pairs(hosts) do
		local authority = authority_of(host);
		if authority and authority[question](...) then return true; end
	end
	return false;
end

local is_admin;
if module.could then -- Prosody 13; its is_admin() still works, but complains with a stack trace
	module:default_permission("prosody:admin", ":pass");
	function is_admin(bare) return module:could(":pass", bare); end
else
	function is_admin(bare) return usermanager.is_admin(bare, module.host); end
end

-- Jitsi's focus is one of the admins, or at least what its component stands for.
local function is_focus(bare)
	for host, session in pairs(hosts) do
		if session.modules and session.modules.client_proxy
		and module:context(host):get_option_string("target_address") == bare then
			return true;
		end
	end
	return false;
end

local function is_staff(bare)
	return jid.node(bare) ~= nil and (is_admin(bare) or is_focus(bare));
end

local function passes(from)
	local bare = jid.bare(from);
	local host = jid.host(from);
	-- An authority's own people prove themselves, whatever its list of domains says.
	return is_staff(bare) or not authority_of(host) and any_authority("allows_domain", host);
end

local function binding_of(from)
	local session = full_sessions[from];
	return session and session.matrix_uvs;
end

local function admitted(from, room_jid)
	local authority = authority_of(jid.host(from));
	return authority and authority.admits(binding_of(from), room_jid) or false;
end

-- Whether the Matrix level of the person behind that address carries ownership of that room.
local function carries_ownership(bare, room)
	local user = bare_sessions[bare];
	for _, session in pairs(user and user.sessions or {}) do
		if session.matrix_uvs and session.matrix_uvs.owner and admitted(session.full_jid, room.jid) then return true; end
	end
	return false;
end

local function may_own(bare, room)
	return is_staff(bare) or carries_ownership(bare, room);
end

-- What is let through to the rooms -----------------------------------------------------------------------------------

local function refuse(event, text)
	local stanza = event.stanza;
	local kind = stanza.attr.type;
	if kind ~= "error" and kind ~= "result" and kind ~= "unavailable" then
		event.origin.send(st.error_reply(stanza, "cancel", "not-allowed", text, module.host));
	end
	module:log(stanza.name == "presence" and "info" or "debug", "Refused %s from %s to %s: %s",
		stanza.name, stanza.attr.from, stanza.attr.to, text);
	return true;
end

-- The room of that address, if that person is in it.
local function joined_room(from, to)
	local room = jid.node(to) and hosts[module.host].modules.muc.get_room_from_jid(jid.bare(to));
	return room and room:get_occupant_jid(from) and room or nil;
end

-- COMPAT: what the rooms of Prosody 0.12 and 13 raise errors at, or do for anybody. Nobody in Jitsi Meet sends these.
local function is_mischief(stanza, room)
	if stanza.name == "message" then
		local x = stanza:get_child("x", MUC_USER);
		for _, child in ipairs(x and x.tags or {}) do
			if child.attr.xmlns ~= MUC_USER then return true; end -- taken for an invitation by its name alone
		end
		local _, _, nick = jid.split(stanza.attr.to);
		return stanza.attr.type == "error" and nick ~= nil and not room:get_occupant_by_nick(stanza.attr.to);
	elseif stanza.name == "iq" and stanza.tags[1] and (stanza.attr.type == "get" or stanza.attr.type == "set") then
		local query = stanza.tags[1];
		if query.attr.xmlns == "jabber:iq:register" then return true; end
		if query.attr.xmlns ~= MUC_ADMIN then return false; end
		for _, item in ipairs(query.tags) do
			-- To reserve a nickname, whoever has it now is thrown out, before anybody asks who is reserving it.
			if item.attr.nick and item.attr.jid and item.attr.affiliation then return true; end
		end
		return query.tags[1] == nil;
	end
	return false;
end

-- What somebody may send before having joined: the presence that joins, and questions about the room or the component.
-- Messages to the component itself are how Jitsi's plug-ins are told to make breakout rooms.
local function may_send_unjoined(stanza)
	local node, _, resource = jid.split(stanza.attr.to);
	if stanza.name == "presence" then return resource ~= nil; end
	if stanza.name == "message" then return node == nil; end
	return stanza.attr.type == "get" and not resource
		and stanza:get_child("query", "http://jabber.org/protocol/disco#info") ~= nil;
end

local function check_incoming(event)
	local stanza = event.stanza;
	local from, to = stanza.attr.from, stanza.attr.to;
	local node, host = jid.split(from);
	if not host or not hosts[host] and not any_authority("allows_s2s") then
		return refuse(event, uvs.texts["no-matrix"]);
	end
	local room = joined_room(from, to);
	if room then return is_mischief(stanza, room) and refuse(event, "Nobody in a conference needs that.") or nil; end
	if passes(from) then return nil; end
	-- Other parts of this server may speak to rooms, but not sit in them.
	if not node and hosts[host] and stanza.name ~= "presence" then return nil; end
	local binding = binding_of(from);
	if not binding or binding.revoked then return refuse(event, uvs.texts["no-matrix"]); end
	if jid.node(to) and not admitted(from, jid.bare(to)) then return refuse(event, uvs.texts["other-room"]); end
	if not may_send_unjoined(stanza) then return refuse(event, NOT_JOINED); end
end

for _, kind in ipairs { "message", "presence", "iq" } do
	for _, target in ipairs { "full", "bare", "host" } do
		module:hook(kind.."/"..target, check_incoming, FIRST);
	end
end

-- Entering -----------------------------------------------------------------------------------------------------------

-- A ban is for the address of one login. Kept for the person, it is not lifted by logging in once more.
local function is_banned(binding, authority, room)
	for _, place in ipairs { room, authority.main_room(binding) or room } do
		for _, user_id in pairs(place._data.matrix_uvs_banned or {}) do
			if user_id == binding.user_id then return true; end
		end
	end
	return false;
end

local function check_entry(event)
	local from = event.stanza.attr.from;
	if passes(from) then return nil; end
	if not admitted(from, event.room.jid) then
		return refuse(event, uvs.texts[binding_of(from) and "other-room" or "no-matrix"]);
	end
	local authority = authority_of(jid.host(from));
	if authority.has_breakouts_on(module.host) then
		-- Jitsi takes the name of a breakout room for its key; whoever is kept waiting in the lobby may know it.
		local standing = authority.main_room(binding_of(from)):get_affiliation(from) or "none";
		if standing == "none" then return refuse(event, NOT_JOINED); end
	end
	if is_banned(binding_of(from), authority, event.room) then
		event.origin.send(st.error_reply(event.stanza, "auth", "forbidden", nil, event.room.jid));
		return true;
	end
end

module:hook("muc-room-pre-create", check_entry, 99);
module:hook("muc-occupant-pre-join", check_entry, 99);

-- Prosody has just made the creator owner (at -1) and locked the room (at 10) until its owner has configured it, which
-- nobody but Jitsi's focus would do.
module:hook("muc-room-pre-create", function (event)
	local room, from = event.room, event.stanza.attr.from;
	if not may_own(jid.bare(from), room) then room:set_affiliation(true, jid.bare(from), "none"); end
	if not passes(from) then room._data.locked = nil; end
end, -2);

-- Lobbies and breakout rooms have no owners of their own: Jitsi lets those of the conference count there.
module:hook("muc-occupant-pre-join", function (event)
	if not any_authority("has_conferences_on", module.host) then return; end
	local room, occupant, from = event.room, event.occupant, event.stanza.attr.from;
	local bare, standing = jid.bare(from), room:get_affiliation(jid.bare(from)) or "none";
	if standing ~= "owner" and may_own(bare, room) then
		if room:set_affiliation(true, bare, "owner") then occupant.role = room:get_default_role("owner"); end
	elseif standing == "none" and not passes(from) then
		-- A lobby that is opened during the call throws out whoever is not at least a member.
		room:set_affiliation(true, bare, "member");
	end
end, LAST);

-- Moderation ---------------------------------------------------------------------------------------------------------

-- Whoever grants it, be it Jitsi's focus: moderation comes from Matrix, or, where that is turned off, from Jitsi.
local function may_moderate(bare, room)
	local authority = authority_of(jid.host(bare));
	return authority and not authority.syncs_power_levels() or may_own(bare, room);
end

module:hook("muc-pre-set-affiliation", function (event)
	if event.affiliation ~= "owner" and event.affiliation ~= "admin" then return; end
	if may_moderate(event.jid, event.room) then return; end
	event.allowed = false;
	return true; -- so that nothing acts on a grant that is none
end, FIRST);

module:hook("muc-pre-set-role", function (event)
	if event.role ~= "moderator" or may_moderate(event.occupant.bare_jid, event.room) then return; end
	event.allowed, event.error, event.condition = false, "cancel", "not-allowed";
	return true;
end, FIRST);

-- Whoever is thrown out has to prove themselves once more, and cannot resume what they were thrown out of.
module:hook("muc-broadcast-presence", function (event)
	for status in event.x:childtags("status") do
		if status.attr.code == "307" or status.attr.code == "301" then
			for real_jid in event.occupant:each_session() do
				local binding = binding_of(real_jid);
				if binding then binding.revoked = true; end
			end
		end
	end
end, FIRST);

module:hook("muc-set-affiliation", function (event)
	local data = event.room._data; -- what Prosody keeps of a room
	data.matrix_uvs_banned = data.matrix_uvs_banned or {};
	data.matrix_uvs_banned[event.jid] = nil;
	if event.affiliation ~= "outcast" then return; end
	local user = bare_sessions[event.jid];
	for _, session in pairs(user and user.sessions or {}) do
		data.matrix_uvs_banned[event.jid] = session.matrix_uvs and session.matrix_uvs.user_id;
	end
end);

-- Invitations and their declines are sent on to whatever address they name, so only within the conference.
local function check_invitation(event)
	local x = event.stanza:get_child("x", MUC_USER);
	for _, child in ipairs(x and x.tags or {}) do
		local to = jid.prep(child.attr.to);
		if to and not passes(to) and not admitted(to, event.room.jid) then
			return refuse(event, uvs.texts["other-room"]);
		end
	end
end

module:hook("muc-pre-invite", check_invitation, FIRST);
module:hook("muc-pre-decline", check_invitation, FIRST);
