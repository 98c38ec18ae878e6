-- The order of streams: each draws a number when it is opened, and of a device's streams the one with the highest is the
-- newest, whatever the clocks of the gateways say.

CREATE SEQUENCE stream_numbers AS bigint;
