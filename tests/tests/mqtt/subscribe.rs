//! SUBSCRIBE and SUBACK (3.8, 3.9): options, identifiers, reason codes.
