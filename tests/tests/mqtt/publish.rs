//! PUBLISH (3.3): topics, properties, RETAIN and DUP, aliases, expiry.
