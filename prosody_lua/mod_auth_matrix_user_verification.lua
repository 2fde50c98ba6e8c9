-- Lets people log in to Jitsi Meet with the OpenID token of their Matrix account, if they are joined to the Matrix room
-- of the conference that they open. See docs/prosody.md.
--
-- This module proves who somebody is and for which room (session.matrix_uvs), and watches what such a session sends.
-- Who enters which conference room is watched by mod_matrix_power_sync, which this module loads wherever it is needed.
--
-- luacheck: globals admits main_room has_conferences_on has_breakouts_on allows_domain allows_s2s syncs_power_levels

local async = require "util.async";
local formdecode = require "util.http".formdecode;
local generate_uuid = require "util.uuid".generate;
local sha256 = require "util.hashes".sha256;
local http = require "net.http";
local jid = require "util.jid";
local json = require "util.json";
local modulemanager = require "core.modulemanager";
local st = require "util.stanza";
local timer = require "util.timer";

local uvs = module:require "matrix_uvs";

local GUARD = "matrix_power_sync";
local MAX_ANSWER = 262144; -- bytes; power levels are an event of at most 65,536, which escaping may triple
local FIRST = 1000; -- priority: before any handler of Prosody or Jitsi acts on what is to be refused

local vhost = module.host;
local hosts = prosody.hosts;

-- Configuration ------------------------------------------------------------------------------------------------------

local settings;

local function read_sync_power_levels()
	local value = module:get_option("uvs_sync_power_levels", false);
	if type(value) == "boolean" or type(value) == "number" then return value; end
	if value == "true" then return true; end
	if value == "false" then return false; end
	if tonumber(value) then return tonumber(value); end
	module:log("error", "uvs_sync_power_levels must be true, false or a power level such as 50; nobody is made owner");
	return false;
end

local function read_settings()
	settings = {
		app_id = module:get_option_string("app_id");
		base_url = module:get_option_string("uvs_base_url", ""):match("^(https?://[^/%s]%S-)/*$");
		auth_token = module:get_option_string("uvs_auth_token");
		timeout = module:get_option_number("uvs_timeout", 5);
		sync_power_levels = read_sync_power_levels();
		allow_domains = module:get_option_set("uvs_allow_domains", {}) / jid.prep;
		allow_s2s = module:get_option_boolean("uvs_allow_s2s", false);
	};
	if not settings.app_id or settings.app_id == "" then
		settings.app_id = nil;
		module:log("error", "Every login is refused: set app_id to what is iss in the tokens, for Element %q", vhost);
	end
	if not settings.base_url then
		module:log("error", "Every login is refused: set uvs_base_url to where uvs listens, as http://127.0.0.1:3000");
	elseif settings.base_url:match("^http://") and not settings.base_url:match("^http://127%.[%d.]+[:/]?")
	and not settings.base_url:match("^http://localhost[:/]?") and not settings.base_url:match("^http://%[::1%]") then
		module:log("warn", "uvs_base_url is plain http: people's tokens travel unencrypted; use https between machines");
	end
	if not settings.timeout or settings.timeout <= 0 then
		settings.timeout = 5;
		module:log("error", "uvs_timeout must be a number of seconds above 0; using %d", settings.timeout);
	end
end

read_settings();
module:hook_global("config-reloaded", read_settings);

-- Where the rooms are ------------------------------------------------------------------------------------------------

local function muc_of(host)
	local session = hosts[host];
	return session and session.modules and session.modules.muc;
end

-- The component of the conferences: what Jitsi's plug-ins are told, else its usual names, else the only one there is.
local function main_host()
	local named = module:get_option_string("main_muc") or module:get_option_string("muc_mapper_domain");
	if named then return jid.prep(named); end
	local base = module:get_option_string("muc_mapper_domain_base", vhost);
	local usual = { module:get_option_string("muc_mapper_domain_prefix", "conference").."."..base;
		"conference."..vhost; "muc."..vhost };
	for _, name in ipairs(usual) do
		if muc_of(name) then return name; end
	end
	local only;
	for name in pairs(hosts) do
		if muc_of(name) then
			if only then return nil; end
			only = name;
		end
	end
	return only;
end

local function lobby_host()
	return jid.prep(module:get_option_string("lobby_muc", "lobby."..vhost));
end

local function breakout_host()
	return jid.prep(module:get_option_string("breakout_rooms_muc", "breakout."..vhost));
end

-- The conference room of that session, if it exists.
function main_room(binding)
	local host = main_host();
	local muc = host and muc_of(host);
	return muc and muc.get_room_from_jid(jid.join(binding.node, host));
end

-- Whether a session with that proof belongs into that room: its conference, and the lobby and breakouts of that.
function admits(binding, room_jid)
	if not binding or binding.revoked then return false; end
	local node, host = jid.split(room_jid);
	if host == main_host() then return node == binding.node; end
	-- Jitsi's plug-ins register lobby and breakout rooms with their conference; their names alone say nothing.
	local room = main_room(binding);
	if not room then return false; end
	if host == lobby_host() then return node == binding.node and room._data.lobbyroom ~= nil; end
	local breakouts = host == breakout_host() and room._data.breakout_rooms;
	return breakouts and breakouts[jid.join(node, host)] ~= nil or false;
end

function has_conferences_on(host) return host == main_host(); end
function has_breakouts_on(host) return host == breakout_host(); end
function allows_domain(domain) return settings.allow_domains:contains(domain); end
function allows_s2s() return settings.allow_s2s; end
function syncs_power_levels() return settings.sync_power_levels ~= false; end

-- The guards ---------------------------------------------------------------------------------------------------------

-- Whether that host needs no guard, or has one.
local function ensure_guard(host)
	if not muc_of(host) or modulemanager.is_loaded(host, GUARD) then return true; end
	return modulemanager.load(host, GUARD) ~= nil;
end

-- What keeps everybody out, or nothing.
local function not_ready()
	if not settings.app_id then return "app_id is not set"; end
	if not settings.base_url then return "uvs_base_url is not set, or not an http(s) address"; end
	local main = main_host();
	if not main or not muc_of(main) then
		return "the component of the conferences is not known; set main_muc on the VirtualHost";
	end
	for host in pairs(hosts) do
		if not ensure_guard(host) then
			return "mod_"..GUARD.." cannot be loaded on "..host.."; it must be in plugin_paths, too";
		end
	end
end

local function watch_host(host)
	module:context(host):hook("module-loaded", function (event)
		if event.module == "muc" then ensure_guard(host); end
	end);
	ensure_guard(host);
end

for host in pairs(hosts) do watch_host(host); end
module:hook_global("host-activated", watch_host, -1); -- after Prosody has loaded the modules of that host

module:hook_global("server-started", function ()
	local reason = not_ready();
	if reason then
		module:log("error", "Every login is refused: %s", reason);
	else
		module:log("info", "Conferences on %s are open to the people of their Matrix rooms", main_host());
	end
end);

-- Asking the service -------------------------------------------------------------------------------------------------

-- Ends a request. One that is still being connected cannot be called back, but what it would send can.
local function abandon(request)
	if request.conn then
		http.destroy_request(request);
	else
		request.headers, request.body = {}, nil;
	end
end

-- Returns the status and the body; for a failed exchange the status is a word that says how. Prosody goes on serving
-- others meanwhile.
local function ask(claims)
	local wait, done = async.waiter();
	local status, body;
	local function finish(answer, code)
		if status then return; end
		if code and code ~= 0 then
			status, body = code, answer;
		else
			status = tostring(answer);
		end
		done();
	end
	local sent, request = pcall(http.request, settings.base_url.."/verify/user_in_room", {
		method = "POST";
		headers = {
			["Content-Type"] = "application/json";
			["Authorization"] = settings.auth_token and "Bearer "..settings.auth_token;
		};
		body = json.encode({
			token = claims.token; room_id = claims.room_id; matrix_server_name = claims.server_name;
		});
	}, finish);
	if not sent or not request then
		return status or request or "failed";
	end
	request.body_size_limit = MAX_ANSWER; -- read when the first byte of the answer comes
	-- Not module:add_timer(), which forgets its timers when the module is reloaded.
	local deadline = timer.add_task(settings.timeout, function ()
		if status then return; end
		abandon(request);
		finish("timeout");
	end);
	wait();
	timer.stop(deadline);
	return status, body;
end

-- Logging in ---------------------------------------------------------------------------------------------------------

-- What came with the BOSH or WebSocket request of a session, until it logs in.
local queries = setmetatable({}, { __mode = "k" });

local function remember_query(event)
	local query = event.request.url.query;
	local params = query and formdecode(query);
	if type(params) ~= "table" then return; end
	queries[event.session] = { token = params.token, room = params.room, previd = params.previd };
end

module:hook_global("bosh-session", remember_query);
module:hook_global("websocket-session", remember_query);

-- The session of this host that hibernates under that resumption id. Somebody who was kicked has none.
local function find_hibernating(previd)
	for _, user in pairs(hosts[vhost].sessions) do
		for _, session in pairs(user.sessions) do
			if session.resumption_token == previd and session.hibernating and not session.destroyed
			and session.matrix_uvs and not session.matrix_uvs.revoked then
				return session;
			end
		end
	end
end

-- The session that this request may resume. The id alone is no credential: it takes the OpenID token, too, that the
-- session was proven with, which may have expired meanwhile.
local function find_own(query, session)
	if not query.previd or not session.stream then return nil; end -- BOSH has no stream that could be moved
	local claims = settings.app_id and uvs.read_token(query.token, settings.app_id);
	local hibernating = claims and find_hibernating(query.previd);
	return hibernating and hibernating.matrix_uvs.token == sha256(claims.token) and hibernating or nil;
end

local warned_of_levels = false;

-- Once, since it is so for everybody then.
local function warn_of_levels()
	if warned_of_levels or settings.sync_power_levels == false then return; end
	warned_of_levels = true;
	module:log("warn", "uvs_sync_power_levels is set, but the service cannot know the power levels in every room; "..
		"where it cannot, nobody is made owner");
end

-- Returns a proof, or nil, the refusal and the reason for the log.
local function verify(query, reason)
	if reason then return nil, "unavailable", reason; end
	local claims, flaw = uvs.read_token(query.token, settings.app_id);
	if not claims then return nil, "no-matrix", flaw; end
	local node = uvs.base32(claims.room_id);
	if not query.room or query.room:lower() ~= node then return nil, "other-room", "other-room", claims; end
	local status, answer = ask(claims);
	if status == 403 then module:log("error", "The service does not accept uvs_auth_token"); end
	local verdict, refusal, why = uvs.read_verdict(status, answer);
	if not verdict then return nil, refusal, why, claims; end
	if not verdict.level then warn_of_levels(); end
	return {
		node = node;
		room_id = claims.room_id;
		user_id = verdict.user_id;
		owner = uvs.is_moderator(verdict, settings.sync_power_levels);
		token = sha256(claims.token); -- enough to know it again
		checked = os.time();
	}, nil, nil, claims;
end

-- Returns the user name, or nil and which text the person reads.
local function log_in(session)
	local query = queries[session] or {};
	queries[session] = nil; -- one request of a client is worth one question to the service
	if session.host ~= vhost then
		-- With a "to" on it, Prosody hands <auth/> to the mechanisms of another host than the one that the stream, and
		-- so the account, is of.
		module:log("warn", "Refused somebody who is connecting to %s", uvs.loggable(session.host));
		return nil, "no-matrix";
	end
	local hibernating = find_own(query, session);
	if hibernating then
		local proven = hibernating.matrix_uvs;
		module:log("info", "Let %s resume for Matrix room %s", uvs.loggable(proven.user_id), uvs.loggable(proven.room_id));
		session.matrix_uvs_previd = query.previd;
		return hibernating.username;
	end
	local proof, refusal, reason, claims = verify(query, not_ready());
	if session.destroyed then return nil; end
	local room_id = claims and uvs.loggable(claims.room_id) or "(none)";
	if not proof then
		module:log("info", "Refused somebody for Matrix room %s: %s (%s)", room_id, refusal, reason);
		return nil, refusal;
	end
	module:log("info", "Let %s in for Matrix room %s%s", uvs.loggable(proof.user_id), room_id,
		proof.owner and " as its moderator" or "");
	session.matrix_uvs = proof;
	-- What Jitsi's plug-ins look for. Features are not set: then they are the ones that the standing in the call carries.
	session.jitsi_meet_context_user = claims.user;
	session.jitsi_web_query_room, session.jitsi_web_query_prefix = proof.node, "";
	return generate_uuid();
end

-- COMPAT: what a BOSH client sends while the service is asked is kept until then. Where the client leaves before all of
-- it was dealt with, mod_bosh of both versions calls a method that the destroyed session does not have any more.
local surviving = setmetatable({}, { __mode = "k" }); -- a session may try to log in as often as it likes

local function survive_leaving(session)
	if surviving[session] then return; end
	surviving[session] = true;
	local close = session.close;
	function session:close(reason)
		close(self, reason);
		if self.destroyed then self.dispatch_stanza = function () end; end
	end
end

-- Not util.sasl: its ANONYMOUS is shared by all hosts, tells no reason, and takes "no" as "try another name".
local function new_handler(session)
	local handler = {};

	function handler:mechanisms() return { ANONYMOUS = true }; end -- luacheck: ignore 212/self

	function handler:select(mechanism)
		self.selected = mechanism == "ANONYMOUS" and mechanism or nil;
		return self.selected ~= nil;
	end

	function handler:clean_clone() return new_handler(session); end -- luacheck: ignore 212/self

	function handler:process()
		if session.dispatch_stanza then survive_leaving(session); end
		local username, refusal = log_in(session);
		if session.destroyed then
			-- COMPAT: Prosody 13's mod_saslauth raises an error for a client that has vanished meanwhile.
			session.base_type = "c2s";
			return "failure", "temporary-auth-failure";
		end
		if not username then return "failure", "not-allowed", uvs.texts[refusal]; end
		self.username = username;
		return "success";
	end

	return handler;
end

local function not_supported() return nil, "not supported"; end

module:provides("auth", {
	get_sasl_handler = new_handler;
	test_password = not_supported;
	get_password = not_supported;
	set_password = not_supported;
	user_exists = not_supported;
	create_user = not_supported;
	delete_user = not_supported;
});

-- Resumption: a session that was let in for its resumption id may resume that session and do nothing else.

module:hook("pre-resource-bind", function (event)
	if not event.session.matrix_uvs then
		event.error = { type = "cancel", condition = "not-allowed", text = uvs.texts.unverified };
		return false;
	end
end, FIRST);

for _, xmlns in ipairs { "urn:xmpp:sm:2", "urn:xmpp:sm:3" } do
	module:hook_tag(xmlns, "resume", function (session, stanza)
		local previd, handled = stanza.attr.previd, stanza.attr.h or "";
		if previd and previd == session.matrix_uvs_previd and find_hibernating(previd) and handled:match("^%d+$") then
			return nil; -- mod_smacks goes on; it raises an error where h is not a number
		end
		session.send(st.stanza("failed", { xmlns = xmlns })
			:tag("item-not-found", { xmlns = "urn:ietf:params:xml:ns:xmpp-stanzas" }));
		return true;
	end, FIRST);
end

-- What a session may send --------------------------------------------------------------------------------------------

-- Jitsi's services (the focus, telephones, breakout rooms, moderation of microphones …) are told in attributes which
-- room and whom to serve, and do not ask whose business that is; the focus would go and create the room.
local function names_others(session, stanza)
	local binding = session.matrix_uvs;
	for _, child in ipairs(stanza.tags) do
		for name, value in pairs(child.attr) do
			local address = jid.prep(value);
			local node, host = jid.split(address);
			if name == "room" or node and muc_of(host) then
				if not admits(binding, jid.bare(address)) then return true; end
			elseif node and host == vhost and node ~= session.username then
				local other = prosody.full_sessions[address];
				if not other or not other.matrix_uvs or other.matrix_uvs.node ~= binding.node then return true; end
			end
		end
		if names_others(session, child) then return true; end
	end
	return false;
end

-- Own account, own VirtualHost, the components of this server as such, and conferences, whose guard decides. Not other
-- people, not other VirtualHosts, not other servers.
local function may_send(session, stanza)
	local node, host = jid.split(stanza.attr.to);
	local target = hosts[host];
	if not target then return false; end
	if muc_of(host) then
		if not ensure_guard(host) then return false; end
		-- In conferences the focus serves: it passes calls of telephones on as they are.
		if node and not stanza:get_child("dial", "urn:xmpp:rayo:1") then return true; end
	elseif host == vhost and node == session.username then
		return true;
	elseif node or host ~= vhost and target.type ~= "component" then
		return false;
	end
	return not names_others(session, stanza);
end

local function check_outgoing(event)
	local session, stanza = event.origin, event.stanza;
	if not stanza.attr.to or may_send(session, stanza) then return nil; end
	module:log("debug", "Refused a stanza from %s to %s", session.full_jid, stanza.attr.to);
	if stanza.attr.type ~= "error" and stanza.attr.type ~= "result" then
		session.send(st.error_reply(stanza, "cancel", "not-allowed", uvs.texts["other-room"]));
	end
	return true;
end

for _, kind in ipairs { "message", "presence", "iq" } do
	for _, target in ipairs { "full", "bare", "host" } do
		module:hook("pre-"..kind.."/"..target, check_outgoing, FIRST);
	end
end
