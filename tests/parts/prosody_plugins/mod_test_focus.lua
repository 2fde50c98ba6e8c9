-- Stands where Jitsi's conference focus is reached: whoever asks for a conference is told that it is ready.
-- What it was asked for is in the log, for tests to see what came through.
local st = require "util.stanza";

module:hook("iq-set/host/http://jitsi.org/protocol/focus:conference", function (event)
	local request = event.stanza:get_child("conference", "http://jitsi.org/protocol/focus");
	module:log("info", "Asked for the conference %s by %s", request.attr.room, event.stanza.attr.from);
	event.origin.send(st.reply(event.stanza):tag("conference", {
		xmlns = "http://jitsi.org/protocol/focus"; room = request.attr.room; ready = "true";
	}));
	return true;
end);
