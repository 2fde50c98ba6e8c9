-- Stands for the connection to another server: hands Prosody a presence as if it had come from there, and tells what
-- became of it.
local st = require "util.stanza";

module:hook("iq-get/host/urn:test:wire:presence", function (event)
	local asked = event.stanza:get_child("presence", "urn:test:wire");
	local outcome = "joined";
	local function refused(answer)
		if answer.attr.type == "error" then outcome = select(2, answer:get_error()); end
	end
	local session = {
		type = "s2sin"; from_host = asked.attr.from:match("@([^/]+)"); to_host = asked.attr.to:match("@([^/]+)");
		send = refused; log = module._log; hosts = {};
	};
	prosody.core_post_stanza(session, st.presence({ from = asked.attr.from, to = asked.attr.to })
		:tag("x", { xmlns = "http://jabber.org/protocol/muc" }):up());
	event.origin.send(st.reply(event.stanza):tag("told", { xmlns = "urn:test:wire", outcome = outcome }));
	return true;
end);
