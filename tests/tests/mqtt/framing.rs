//! Fixed header, Remaining Length, properties (2) in every packet.
