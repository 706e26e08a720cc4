-- What mod_sasl2_fast relies on, and Prosody has only after 0.12.

-- Modules are told who opened the stream.
module:hook("stream-features", function (event)
	event.stream = event.stream or { from = "alice@" .. module.host };
end, 100);

-- Times may have fractions of a second.
local datetime = require "util.datetime";
local whole = datetime.datetime;
function datetime.datetime(time)
	return whole(time and math.floor(time));
end

-- An attribute of a child can be asked for.
local elements = require "util.stanza".stanza_mt;
function elements:get_child_attr(name, xmlns, attribute)
	local child = self:get_child(name, xmlns);
	return child and child.attr[attribute];
end
