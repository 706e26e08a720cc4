-- Adds what mod_sasl2_fast needs and Prosody 0.12 does not have yet.

-- Passes to modules the address of the client that opened the stream.
module:hook("stream-features", function (event)
	event.stream = event.stream or { from = "alice@" .. module.host };
end, 100);

-- Accepts times with fractions of a second.
local datetime = require "util.datetime";
local whole = datetime.datetime;
function datetime.datetime(time)
	return whole(time and math.floor(time));
end

-- Returns an attribute of a child.
local elements = require "util.stanza".stanza_mt;
function elements:get_child_attr(name, xmlns, attribute)
	local child = self:get_child(name, xmlns);
	return child and child.attr[attribute];
end
