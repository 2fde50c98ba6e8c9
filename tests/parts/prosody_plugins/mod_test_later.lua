-- Activates another component with rooms while Prosody runs, when it is asked to.
local configmanager = require "core.configmanager";
local hostmanager = require "core.hostmanager";
local st = require "util.stanza";

module:hook("iq-get/host/urn:test:later:activate", function (event)
	local host = event.stanza:get_child("activate", "urn:test:later").attr.host;
	configmanager.set(host, "component_module", "muc");
	configmanager.set(host, "defined", true);
	assert(hostmanager.activate(host));
	event.origin.send(st.reply(event.stanza));
	return true;
end);
